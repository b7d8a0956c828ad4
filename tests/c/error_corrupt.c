/* A state directory that is damaged gives VMT_E_CORRUPT and the file, and is left as it is. */
#include "test.h"

int main(void) {
    stage s;
    stage_open(&s, 0, NULL);
    OK(vmt_pwrite(s.appliance, 0, "written", 7, 0, ERR));
    OK(vmt_appliance_shutdown(s.appliance, VMT_FOREVER, NULL, ERR));
    vmt_appliance_free(s.appliance);
    s.appliance = NULL;

    size_t length, after;
    uint8_t *good = test_read_file(at("state/state.json"), &length);
    test_write_file(at("state/state.json"), "{\"nonsense\": 1", 14);
    vmt_options *options = stage_options(&s);
    vmt_appliance *appliance = NULL;
    FAILS_AS(VMT_E_CORRUPT, EIO, "state.json", vmt_session_launch(s.session, s.image, options, NULL, &appliance, ERR));
    FAILS_AS(VMT_E_CORRUPT, EIO, "state.json", vmt_export(s.state, at("out.img"), options, NULL, NULL, ERR));
    uint8_t *left = test_read_file(at("state/state.json"), &after);
    SAME_TEXT((char *)left, "{\"nonsense\": 1");
    free(left);

    test_write_file(at("state/state.json"), good, length);
    free(good);
    OK(vmt_session_launch(s.session, s.image, options, NULL, &s.appliance, ERR));
    READS(s.appliance, "written", 7, 0);
    vmt_options_free(options);
    stage_close(&s);
    return test_end();
}
