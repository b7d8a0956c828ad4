/* What the guest wrote is there at the next launch, with what was downloaded; `ephemeral` forgets it. */
#include "test.h"

static void relaunch(stage *s, const char *key, const char *value) {
    OK(vmt_appliance_shutdown(s->appliance, VMT_FOREVER, NULL, ERR));
    vmt_appliance_free(s->appliance);
    s->appliance = NULL;
    stage_launch(s, key, value, NULL);
}

int main(void) {
    stage s;
    stage_open(&s, 0, NULL);
    SAME_TEXT(vmt_appliance_state_directory(s.appliance), s.state);
    stage_check(&s, 0, s.length);
    OK(vmt_pwrite(s.appliance, 0, "written", 7, 100, ERR));
    OK(vmt_write_zeroes(s.appliance, 0, 8192, 5000, ERR));
    OK(vmt_set_length(s.appliance, 0, s.length + 10000, ERR));
    /* The seed is not needed any more. */
    OK(vmt_session_shutdown(s.source, VMT_FOREVER, ERR));
    relaunch(&s, "fill", "none");
    READS(s.appliance, s.content, 100, 0);
    READS(s.appliance, "written", 7, 100);
    READS_ZEROS(s.appliance, 5000, 8192);
    READS(s.appliance, s.content + 2 * PIECE, s.length - 2 * PIECE, 2 * PIECE);
    READS_ZEROS(s.appliance, 10000, s.length);
    uint64_t length = 0;
    OK(vmt_appliance_file_length(s.appliance, 0, &length, ERR));
    SAME(length, s.length + 10000);
    /* The image is as it was published. */
    SAME(vmt_image_file_length(s.image, 0), s.length);

    relaunch(&s, "ephemeral", "true");
    stage_check(&s, 0, s.length);
    OK(vmt_pwrite(s.appliance, 0, "forgotten", 9, 100, ERR));
    relaunch(&s, "ephemeral", "true");
    stage_check(&s, 0, 200);
    relaunch(&s, "state", s.state);
    READS(s.appliance, "written", 7, 100);
    stage_close(&s);
    return test_end();
}
