/* What does not exist gives VMT_E_NOT_FOUND, ENOENT and its name. */
#include "test.h"

#define ABSENT(name, call) FAILS_AS(VMT_E_NOT_FOUND, ENOENT, name, call)

int main(void) {
    stage s;
    stage_open(&s, 0, NULL);
    vmt_image *image = NULL;
    vmt_appliance *appliance = NULL;
    vmt_profile *profile = NULL;
    vmt_seed *seed = NULL;
    size_t file = 0;
    ABSENT("none.torrent", vmt_session_load(s.session, at("none.torrent"), NULL, NULL, &image, ERR));
    char url[512];
    snprintf(url, sizeof url, "file://%s", at("none.torrent"));
    ABSENT("none.torrent", vmt_session_load(s.session, url, NULL, NULL, &image, ERR));
    vmt_options *options = test_session_options(at("another-cache"));
    ABSENT("none.torrent", vmt_launch(at("none.torrent"), options, NULL, &appliance, ERR));
    ABSENT("none.json", vmt_profile_load(at("none.json"), &profile, ERR));
    ABSENT("no-disk", vmt_publish(at("no-disk"), NULL, test_no_progress, NULL, &image, ERR));
    ABSENT("no-directory", vmt_image_save(s.image, at("no-directory/x.torrent"), ERR));
    ABSENT("no-state", vmt_export(at("no-state"), at("out"), NULL, NULL, NULL, ERR));
    vmt_session *third = test_session(at("third"));
    ABSENT("disk.img", vmt_session_seed(third, s.image, at("no-data"), &seed, ERR));
    vmt_session_free(third);
    FAILS_AS(VMT_E_NOT_FOUND, ENOENT, "other.img", vmt_appliance_find_file(s.appliance, "other.img", &file, ERR));
    FAILS(VMT_E_NOT_FOUND, vmt_image_profile(s.image, &profile, ERR));
    OK(vmt_options_set(options, "profile", at("none.json"), ERR));
    ABSENT("none.json", vmt_publish(at("data/disk.img"), options, test_no_progress, NULL, &image, ERR));
    vmt_options_free(options);

    /* Nobody's home. */
    vmt_session *session = NULL;
    unsetenv("HOME");
    unsetenv("XDG_CACHE_HOME");
    options = test_options("listen", "127.0.0.1:0", NULL);
    vmt_status status = vmt_session_start(options, &session, ERR);
    if (status == VMT_OK) {
        /* The system knows the user's home by other means. */
        vmt_session_free(session);
    } else {
        test_fails(__FILE__, __LINE__, "vmt_session_start", status, VMT_E_NOT_FOUND);
        HAS(test_message(), "cache");
    }
    vmt_options_free(options);
    CHECK(image == NULL && appliance == NULL && profile == NULL && seed == NULL);
    stage_close(&s);
    return test_end();
}
