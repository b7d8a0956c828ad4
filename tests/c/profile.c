/* Profiles of runs: taken of an appliance, saved, loaded, merged, put into a .torrent file, and used by a launch. */
#include "test.h"

int main(void) {
    stage s;
    stage_open(&s, 0, "record", at("record.json"), NULL);
    vmt_profile *empty = NULL, *run = NULL, *loaded = NULL;
    OK(vmt_appliance_profile(s.appliance, &empty, ERR));
    SAME(vmt_profile_blocks(empty), 0);
    stage_check(&s, 0, 3 * PIECE);
    stage_check(&s, 8 * PIECE, 10);
    OK(vmt_appliance_profile(s.appliance, &run, ERR));
    SAME(vmt_profile_runs(run), 1);
    SAME(vmt_profile_blocks(run), 4);
    SAME_TEXT(vmt_profile_name(run), "disk.img");
    SAME_TEXT(vmt_profile_info_hash(run), vmt_image_info_hash(s.image));

    OK(vmt_profile_save(run, at("run.json"), ERR));
    OK(vmt_profile_load(at("run.json"), &loaded, ERR));
    SAME(vmt_profile_blocks(loaded), 4);
    SAME_TEXT(vmt_profile_info_hash(loaded), vmt_image_info_hash(s.image));
    size_t length;
    uint8_t *text = test_read_file(at("run.json"), &length);
    vmt_profile *parsed = NULL;
    OK(vmt_profile_from_bytes(text, length, &parsed, ERR));
    SAME(vmt_profile_blocks(parsed), 4);
    vmt_profile *bad = NULL;
    for (size_t cut = 0; cut < length - 2; cut += 7)
        FAILS(VMT_E_INVALID, vmt_profile_from_bytes(text, cut, &bad, ERR));
    test_write_file(at("bad.json"), "[]", 2);
    FAILS_AS(VMT_E_INVALID, EINVAL, "bad.json", vmt_profile_load(at("bad.json"), &bad, ERR));
    free(text);

    /* Merging: with another run, with itself, with that of another image. */
    OK(vmt_profile_merge(loaded, parsed, false, NULL, ERR));
    SAME(vmt_profile_runs(loaded), 2);
    SAME(vmt_profile_runs(parsed), 1);
    SAME(vmt_profile_blocks(loaded), 4);
    vmt_mismatch mismatch;
    memset(&mismatch, 0xEE, sizeof mismatch);
    OK(vmt_profile_merge(loaded, loaded, true, &mismatch, ERR));
    SAME(vmt_profile_runs(loaded), 4);
    SAME(mismatch.same | mismatch.different | mismatch.unknown | mismatch.elsewhere, 0);

    /* Another image: the first pieces are the same, the others are not. */
    SAME(mkdir(at("other"), 0700), 0);
    uint8_t *content = test_content(s.length + PIECE, 3);
    memcpy(content, s.content, 2 * PIECE);
    test_write_file(at("other/disk.img"), content, s.length + PIECE);
    vmt_image *other = test_publish(at("other/disk.img"), NULL);
    vmt_seed *seed = NULL;
    OK(vmt_session_seed(s.source, other, at("other"), &seed, ERR));
    vmt_options *options = test_options("ephemeral", "true", "fill", "none", "peer", vmt_session_listen_address(s.source), NULL);
    vmt_appliance *appliance = NULL;
    OK(vmt_session_launch(s.session, other, options, NULL, &appliance, ERR));
    READS(appliance, content, 6 * PIECE, 0);
    vmt_profile *foreign = NULL;
    OK(vmt_appliance_profile(appliance, &foreign, ERR));
    OK(vmt_appliance_shutdown(appliance, VMT_FOREVER, NULL, ERR));
    vmt_appliance_free(appliance);
    appliance = NULL;
    uint64_t blocks = vmt_profile_blocks(foreign);
    memset(&mismatch, 0xEE, sizeof mismatch);
    FAILS_AS(VMT_E_INVALID, EINVAL, "", vmt_profile_merge(loaded, foreign, false, &mismatch, ERR));
    SAME(mismatch.same, 0xEEEEEEEEEEEEEEEEu);
    SAME(vmt_profile_runs(loaded), 4);
    OK(vmt_profile_merge(loaded, foreign, true, &mismatch, ERR));
    SAME(mismatch.same, 2);
    SAME(mismatch.elsewhere, 0);
    SAME(mismatch.same + mismatch.different + mismatch.unknown + mismatch.elsewhere, blocks);
    SAME(vmt_profile_blocks(foreign), blocks);

    /* That of another image serves neither a launch nor a .torrent file. */
    OK(vmt_options_set_profile(options, foreign, ERR));
    FAILS_AS(VMT_E_INVALID, EINVAL, "another image", vmt_session_launch(s.session, s.image, options, NULL, &appliance, ERR));
    vmt_image *published = NULL;
    FAILS_AS(VMT_E_INVALID, EINVAL, "another image", vmt_publish(at("data/disk.img"), options, test_no_progress, NULL, &published, ERR));
    CHECK(published == NULL);
    OK(vmt_options_set_profile(options, NULL, ERR));

    /* In a .torrent file. The options hold a copy. */
    OK(vmt_options_set_profile(options, run, ERR));
    published = test_publish(at("data/disk.img"), options);
    SAME_TEXT(vmt_image_info_hash(published), vmt_image_info_hash(s.image));
    vmt_profile *inside = NULL;
    OK(vmt_image_profile(published, &inside, ERR));
    SAME(vmt_profile_blocks(inside), 4);
    vmt_profile_free(inside);
    vmt_profile_free(run);

    /* The recorded run is of as much, and is used: the file's name counts like the handle. */
    OK(vmt_appliance_shutdown(s.appliance, VMT_FOREVER, NULL, ERR));
    vmt_appliance_free(s.appliance);
    s.appliance = NULL;
    vmt_profile *recorded = NULL;
    OK(vmt_profile_load(at("record.json"), &recorded, ERR));
    SAME(vmt_profile_blocks(recorded), 4);
    vmt_profile_free(recorded);
    OK(vmt_session_shutdown(s.session, VMT_FOREVER, ERR));
    vmt_session_free(s.session);
    s.session = test_session(at("cache-of-profile"));
    OK(vmt_options_set(options, "profile", at("record.json"), ERR));
    OK(vmt_options_set(options, "auto-profile", "false", ERR));
    OK(vmt_session_launch(s.session, s.image, options, NULL, &s.appliance, ERR));
    vmt_options_free(options);
    vmt_stats stats = {.struct_size = sizeof stats};
    /* Nothing is read: what comes is what the profile expects. */
    SOON((OK(vmt_appliance_stats(s.appliance, &stats, ERR)), stats.profile_bytes > 0));
    stage_check(&s, 0, 3 * PIECE);
    OK(vmt_appliance_stats(s.appliance, &stats, ERR));
    SAME(stats.first_reads, 3);
    SAME(stats.expected_reads, 3);

    vmt_profile_free(empty);
    vmt_profile_free(loaded);
    vmt_profile_free(parsed);
    vmt_profile_free(foreign);
    vmt_image_free(published);
    vmt_seed_free(seed);
    vmt_image_free(other);
    free(content);
    stage_close(&s);
    return test_end();
}
