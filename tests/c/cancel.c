/* Loading, launching, publishing and exporting that would wait for ever are given up by their vmt_cancel, soon, with VMT_E_CANCELLED;
 * what they had begun is undone. A cancel that was triggered before ends calls at once. */
#include "test.h"

static vmt_cancel *cancel;

static void *trigger_later(void *user) {
    (void)user;
    test_sleep(200);
    vmt_cancel_trigger(cancel);
    return NULL;
}

#define GIVEN_UP(call)                                                    \
    do {                                                                  \
        pthread_t thread;                                                 \
        cancel = NULL;                                                    \
        OK(vmt_cancel_new(&cancel, ERR));                                 \
        CHECK(!vmt_cancel_is_triggered(cancel));                          \
        SAME(pthread_create(&thread, NULL, trigger_later, NULL), 0);      \
        double begin = test_now();                                        \
        FAILS_AS(VMT_E_CANCELLED, ECANCELED, "", call);                   \
        CHECK(test_now() - begin < 10);                                   \
        pthread_join(thread, NULL);                                       \
        CHECK(vmt_cancel_is_triggered(cancel));                           \
        /* Again, at once. */                                             \
        FAILS_AS(VMT_E_CANCELLED, ECANCELED, "", call);                   \
        vmt_cancel_trigger(cancel);                                       \
        vmt_cancel_free(cancel);                                          \
    } while (0)

static int freed;

static void progress_call(void *user, uint64_t done, uint64_t total) {
    CHECK(done <= total);
    vmt_cancel_trigger(user);
}

static void progress_free(void *user) {
    CHECK(user == cancel);
    freed++;
}

int main(void) {
    int threads = test_threads();
    stage s;
    stage_open_seed(&s, 0);
    vmt_seed_free(s.seed);
    vmt_session_free(s.source);
    s.seed = NULL, s.source = NULL;
    /* A peer that takes the connection and says nothing. */
    char address[32], magnet[256];
    int listener = test_silent_peer(address);
    snprintf(magnet, sizeof magnet, "magnet:?xt=urn:btih:%s&x.pe=%s", vmt_image_info_hash(s.image), address);
    vmt_options *options = test_session_options(at("cache2"));
    OK(vmt_options_set(options, "metadata-timeout", "0", ERR));
    OK(vmt_options_set(options, "state", at("state2"), ERR));
    OK(vmt_options_set(options, "read-timeout", "0", ERR));
    vmt_session *session = NULL;
    OK(vmt_session_start(options, &session, ERR));
    vmt_image *image = NULL;
    GIVEN_UP(vmt_session_load(session, magnet, NULL, cancel, &image, ERR));
    vmt_session_free(session);
    vmt_appliance *appliance = NULL;
    GIVEN_UP(vmt_launch(magnet, options, cancel, &appliance, ERR));

    /* Launching by itself waits for little: a cancel that was triggered before is seen. */
    cancel = NULL;
    OK(vmt_cancel_new(&cancel, ERR));
    vmt_cancel_trigger(cancel);
    FAILS(VMT_E_CANCELLED, vmt_session_launch(s.session, s.image, options, cancel, &appliance, ERR));
    CHECK(image == NULL && appliance == NULL);
    vmt_cancel_free(cancel);

    /* What was begun is undone: the same state serves another launch. */
    vmt_status status = VMT_E_IN_USE;
    SOON((status = vmt_session_launch(s.session, s.image, options, NULL, &appliance, NULL)) != VMT_E_IN_USE);
    SAME(status, VMT_OK);
    OK(vmt_appliance_shutdown(appliance, VMT_FOREVER, NULL, ERR));
    vmt_appliance_free(appliance);
    uint64_t written = 77;
    GIVEN_UP(vmt_export(at("state2"), at("out.img"), options, cancel, &written, ERR));
    SAME(written, 77);
    CHECK(access(at("out.img"), F_OK) != 0);
    vmt_options_free(options);

    /* By its own callback, in the thread of the call. */
    cancel = NULL;
    OK(vmt_cancel_new(&cancel, ERR));
    vmt_progress progress = {progress_call, cancel, progress_free};
    FAILS(VMT_E_CANCELLED, vmt_publish(at("data/disk.img"), NULL, progress, cancel, &image, ERR));
    SAME(freed, 1);
    CHECK(image == NULL);
    vmt_cancel_free(cancel);
    close(listener);
    stage_close(&s);
    SOON(test_threads() == threads);
    return test_end();
}
