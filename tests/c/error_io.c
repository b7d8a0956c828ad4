/* What the system reports otherwise is VMT_E_IO with its errno. */
#include "test.h"

int main(void) {
    SAME(mkdir(at("directory"), 0700), 0);
    vmt_profile *profile = NULL;
    FAILS_AS(VMT_E_IO, EISDIR, "directory", vmt_profile_load(at("directory"), &profile, ERR));
    test_write_file(at("file"), "0123456789", 10);
    vmt_image *image = test_publish(at("file"), NULL);
    FAILS_AS(VMT_E_IO, ENOTDIR, "file/x.torrent", vmt_image_save(image, at("file/x.torrent"), ERR));
    vmt_session *session = test_session(at("cache"));
    vmt_image *loaded = NULL;
    FAILS_AS(VMT_E_INVALID, EINVAL, "directory", vmt_session_load(session, at("directory"), NULL, NULL, &loaded, ERR));
    vmt_appliance *appliance = NULL;
    vmt_options *options = test_options("state", at("file/state"), NULL);
    FAILS_AS(VMT_E_IO, ENOTDIR, "file/state", vmt_session_launch(session, image, options, NULL, &appliance, ERR));
    CHECK(profile == NULL && loaded == NULL && appliance == NULL);
    vmt_options_free(options);
    vmt_session_free(session);
    vmt_image_free(image);
    return test_end();
}
