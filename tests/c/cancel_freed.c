/* A vmt_cancel may serve many calls, and be freed while they run: they go on. */
#include "test.h"

static int entered;
static vmt_cancel *cancel;
static vmt_session *session;
static char magnet[256];

static void *load(void *user) {
    vmt_image *image = NULL;
    __atomic_add_fetch(&entered, 1, __ATOMIC_SEQ_CST);
    vmt_status status = vmt_session_load(session, magnet, NULL, cancel, &image, NULL);
    SAME(status, *(vmt_status *)user);
    CHECK(image == NULL);
    return NULL;
}

/* Searches that nobody answers, each until `timeout` seconds are over or it is told to end. */
static void run(int count, const char *cache, const char *timeout, vmt_status expected, bool trigger) {
    pthread_t threads[8];
    vmt_options *options = test_session_options(cache);
    OK(vmt_options_set(options, "metadata-timeout", timeout, ERR));
    OK(vmt_session_start(options, &session, ERR));
    vmt_options_free(options);
    cancel = NULL;
    entered = 0;
    OK(vmt_cancel_new(&cancel, ERR));
    for (int i = 0; i < count; i++)
        SAME(pthread_create(&threads[i], NULL, load, &expected), 0);
    SOON(__atomic_load_n(&entered, __ATOMIC_SEQ_CST) == count);
    test_sleep(test_is_slow() ? 1000 : 200);
    if (trigger)
        vmt_cancel_trigger(cancel);
    vmt_cancel_free(cancel);
    for (int i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
    OK(vmt_session_shutdown(session, VMT_FOREVER, ERR));
    vmt_session_free(session);
    session = NULL;
}

int main(void) {
    char address[32];
    int listener = test_silent_peer(address);
    snprintf(magnet, sizeof magnet, "magnet:?xt=urn:btih:0123456789012345678901234567890123456789&x.pe=%s", address);
    run(4, at("cache"), "60", VMT_E_CANCELLED, true);
    run(2, at("other"), test_is_slow() ? "4" : "1", VMT_E_TIMED_OUT, false);
    close(listener);
    return test_end();
}
