/* A text that is not UTF-8 is refused by each function that takes one: the error tells which parameter, and where in it. */
#include "test.h"

#define REFUSED(parameter, call)                                       \
    do {                                                               \
        FAILS_AS(VMT_E_UTF8, EILSEQ, "`" parameter "`", call);         \
        HAS(test_message(), where);                                    \
    } while (0)

int main(void) {
    static const struct {
        const char *text, *where;
    } bad[] = {
        {"\xff", "byte 0"},
        {"disk\xC3", "byte 4"},
        {"a\xC0\xAF", "byte 1"},
        /* Half of a pair, as Windows' names may have it. */
        {"ab\xED\xA0\x80", "byte 2"},
        {"\xF4\x90\x80\x80", "byte 0"},
    };
    stage s;
    stage_open(&s, 0, NULL);
    vmt_options *options = test_options("fill", "none", NULL);
    vmt_profile *profile = NULL, *loaded = NULL;
    OK(vmt_appliance_profile(s.appliance, &profile, ERR));
    vmt_image *image = NULL;
    vmt_appliance *appliance = NULL;
    vmt_seed *seed = NULL;
    size_t file;
    vmt_replayed replayed = {.struct_size = sizeof replayed};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        const char *text = bad[i].text, *where = bad[i].where;
        REFUSED("source", vmt_session_load(s.session, text, NULL, NULL, &image, ERR));
        REFUSED("source", vmt_launch(text, NULL, NULL, &appliance, ERR));
        REFUSED("path", vmt_appliance_find_file(s.appliance, text, &file, ERR));
        REFUSED("state", vmt_export(text, "out", NULL, NULL, NULL, ERR));
        REFUSED("output", vmt_export("state", text, NULL, NULL, NULL, ERR));
        REFUSED("path", vmt_image_save(s.image, text, ERR));
        REFUSED("key", vmt_options_set(options, text, "none", ERR));
        REFUSED("value", vmt_options_set(options, "state", text, ERR));
        REFUSED("path", vmt_profile_load(text, &loaded, ERR));
        REFUSED("path", vmt_profile_save(profile, text, ERR));
        REFUSED("path", vmt_profile_plot(profile, text, ERR));
        REFUSED("trace", vmt_replay(text, "disk", 1, NULL, &replayed, ERR));
        REFUSED("disk", vmt_replay("trace", text, 1, NULL, &replayed, ERR));
        REFUSED("path", vmt_publish(text, NULL, test_no_progress, NULL, &image, ERR));
        REFUSED("data", vmt_session_seed(s.source, s.image, text, &seed, ERR));
        REFUSED("address", vmt_session_serve_tracker(s.session, text, ERR));
        REFUSED("address", vmt_session_serve_metrics(s.session, text, ERR));
    }
    CHECK(image == NULL && appliance == NULL && seed == NULL && loaded == NULL);
    /* Text from elsewhere than Latin is good. */
    const char *path = at("Gr\xC3\xB6\xC3\x9F""e \xE2\x82\xAC \xF0\x9F\x92\xBE.torrent");
    OK(vmt_image_save(s.image, path, ERR));
    OK(vmt_session_load(s.session, path, NULL, NULL, &image, ERR));
    vmt_image_free(image);
    vmt_profile_free(profile);
    vmt_options_free(options);
    stage_close(&s);
    return test_end();
}
