/* Handles may be freed in every order: all permutations of session, image, appliance, events and seed, with options and a profile
 * at each place among them, in three kinds of sessions: shut down, at work, and with a read under way. No thread or descriptor is
 * left by any. VMT_TEST_ALL=1 takes all 5040 permutations of all seven. */
#include "test.h"

enum { SESSION, IMAGE, APPLIANCE, EVENTS, SEED, OPTIONS, PROFILE, HANDLES };

static vmt_image *image_of_all, *second_image;
static const char *data, *cache;

/* What is to be freed, and in which order. */
static void check(const int order[HANDLES], int kind) {
    vmt_options *session_options = test_session_options(cache);
    vmt_session *session = NULL;
    OK(vmt_session_start(session_options, &session, ERR));
    vmt_options_free(session_options);
    size_t length;
    const uint8_t *torrent = vmt_image_torrent(image_of_all, &length);
    vmt_image *image = NULL;
    OK(vmt_image_from_bytes(torrent, length, &image, ERR));
    /* Another image: a session does not seed what it runs. */
    vmt_seed *seed = NULL;
    OK(vmt_session_seed(session, second_image, data, &seed, ERR));
    vmt_options *options = test_options("ephemeral", "true", "fill", "none", "auto-profile", "false", "read-timeout", "0.1", NULL);
    vmt_appliance *appliance = NULL;
    OK(vmt_session_launch(session, image, options, NULL, &appliance, ERR));
    vmt_events *events = NULL;
    OK(vmt_events_open(appliance, &events, ERR));
    vmt_profile *profile = NULL;
    OK(vmt_appliance_profile(appliance, &profile, ERR));
    OK(vmt_options_set_profile(options, profile, ERR));
    struct told told = TOLD;
    char buffer[100];
    if (kind == 0) {
        OK(vmt_session_shutdown(session, VMT_FOREVER, ERR));
    } else if (kind == 1) {
        READS_ZEROS(appliance, PIECE, 3 * PIECE);
    } else {
        OK(vmt_aio_pread(appliance, 0, buffer, sizeof buffer, 0, told_completion(&told), ERR));
    }

    for (int i = 0; i < HANDLES; i++) {
        switch (order[i]) {
        case SESSION:
            vmt_session_free(session);
            break;
        case IMAGE:
            SAME(vmt_image_file_count(image), 1);
            vmt_image_free(image);
            break;
        case APPLIANCE:
            SAME_TEXT(vmt_appliance_file_path(appliance, 0), "disk.img");
            vmt_appliance_free(appliance);
            break;
        case EVENTS: {
            vmt_event *event = NULL;
            vmt_status status = vmt_events_next(events, &event, NULL);
            CHECK(status == VMT_E_AGAIN || status == VMT_E_CLOSED);
            vmt_events_free(events);
            break;
        }
        case SEED:
            HAS(vmt_seed_magnet(seed), "magnet:?");
            vmt_seed_free(seed);
            break;
        case OPTIONS:
            OK(vmt_options_set(options, "fill", "idle", ERR));
            vmt_options_free(options);
            break;
        default:
            SAME_TEXT(vmt_profile_name(profile), "disk.img");
            vmt_profile_free(profile);
        }
    }
    /* It ends with the appliance, or when it has waited long enough. */
    if (kind == 2)
        CHECK(told_wait(&told) != VMT_OK);
}

static int done, threads, descriptors;

/* Each permutation of `order` from `from` on. */
static void permute(int *order, int from, int count, void (*each)(const int *)) {
    if (from == count) {
        each(order);
        return;
    }
    for (int i = from; i < count; i++) {
        int chosen = order[i];
        order[i] = order[from], order[from] = chosen;
        permute(order, from + 1, count, each);
        order[from] = order[i], order[i] = chosen;
    }
}

static void one(const int *order) {
    check(order, done % 3);
    done++;
    SOON(test_threads() == threads);
    SOON(test_descriptors() == descriptors);
}

/* With options and profile put in somewhere. */
static void extended(const int *five) {
    int order[HANDLES], place_options = done % 6, place_profile = done / 6 % 7, next = 0;
    for (int i = 0; i <= 5; i++) {
        if (i == place_options)
            order[next++] = OPTIONS;
        if (i < 5)
            order[next++] = five[i];
    }
    memmove(order + place_profile + 1, order + place_profile, (size_t)(6 - place_profile) * sizeof *order);
    order[place_profile] = PROFILE;
    one(order);
}

static void some(const int *five) {
    if (done++ % 12 == 0) {
        int kept = done;
        done = done / 12 * 7;
        extended(five);
        done = kept;
    }
}

int main(void) {
    uint8_t *content = test_content(8 * PIECE, 0);
    SAME(mkdir(at("data"), 0700), 0);
    data = at("data");
    cache = at("cache");
    test_write_file(at("data/disk.img"), content, 8 * PIECE);
    test_write_file(at("data/other.img"), content, 5 * PIECE);
    free(content);
    image_of_all = test_publish(at("data/disk.img"), NULL);
    second_image = test_publish(at("data/other.img"), NULL);
    int order[HANDLES] = {SESSION, IMAGE, APPLIANCE, EVENTS, SEED, OPTIONS, PROFILE};
    threads = test_threads_settled();
    descriptors = test_descriptors();
    if (getenv("VMT_TEST_ALL") != NULL)
        permute(order, 0, HANDLES, one);
    else
        permute(order, 0, 5, test_is_slow() ? some : extended);
    vmt_image_free(image_of_all);
    vmt_image_free(second_image);
    return test_end();
}
