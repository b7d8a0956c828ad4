/* What a profile holds is told as a text, as JSON, and as a picture. */
#include "test.h"

int main(void) {
    stage s;
    stage_open(&s, 0, NULL);
    stage_check(&s, 0, 3 * PIECE);
    vmt_profile *profile = NULL;
    OK(vmt_appliance_profile(s.appliance, &profile, ERR));

    vmt_text *text = NULL, *json = NULL;
    OK(vmt_profile_summary(profile, false, &text, ERR));
    OK(vmt_profile_summary(profile, true, &json, ERR));
    SAME(vmt_text_length(text), strlen(vmt_text_string(text)));
    SAME(vmt_text_length(json), strlen(vmt_text_string(json)));
    HAS(vmt_text_string(text), "image       disk.img");
    HAS(vmt_text_string(text), vmt_profile_info_hash(profile));
    HAS(vmt_text_string(text), "\n");
    HAS(vmt_text_string(json), "\"name\":\"disk.img\"");
    HAS(vmt_text_string(json), "\"blocks\":3,\"bytes\":49152,");
    CHECK(strchr(vmt_text_string(json), '\n') == NULL);

    /* A text stays as it was, and lives longer than its profile. */
    stage_check(&s, 8 * PIECE, 10);
    vmt_profile *more = NULL;
    OK(vmt_appliance_profile(s.appliance, &more, ERR));
    OK(vmt_profile_merge(profile, more, false, NULL, ERR));
    SAME(vmt_profile_blocks(profile), 4);
    OK(vmt_profile_plot(profile, at("profile.svg"), ERR));
    vmt_profile_free(profile);
    HAS(vmt_text_string(json), "\"blocks\":3,");
    vmt_text_free(text);
    vmt_text_free(json);

    size_t length;
    char *picture = (char *)test_read_file(at("profile.svg"), &length);
    CHECK(length < 1000000);
    HAS(picture, "<svg xmlns=\"http://www.w3.org/2000/svg\"");
    HAS(picture, "disk.img");
    HAS(picture, "2 runs");
    HAS(picture, "</svg>\n");
    free(picture);
    FAILS_AS(VMT_E_NOT_FOUND, ENOENT, "absent/a.svg", vmt_profile_plot(more, at("absent/a.svg"), ERR));
    vmt_profile_free(more);
    stage_close(&s);
    return test_end();
}
