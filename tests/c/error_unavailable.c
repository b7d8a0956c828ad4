/* A system without FUSE gives VMT_E_UNAVAILABLE, EOPNOTSUPP and what is missing; without `mount` the same image runs. */
#include <sched.h>
#include <sys/mount.h>

#include "test.h"

int main(void) {
    if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", "none", MS_REC | MS_PRIVATE, NULL) != 0)
        test_skip("hiding /dev/fuse needs root");
    /* In this process alone there is no /dev/fuse. */
    if (mount("none", "/dev", "tmpfs", 0, "size=64k") != 0)
        test_skip("hiding /dev/fuse needs root");
    stage s;
    stage_open_seed(&s, 0);
    SAME(mkdir(at("mount"), 0700), 0);
    vmt_options *options = stage_options(&s);
    OK(vmt_options_set(options, "mount", at("mount"), ERR));
    FAILS_AS(VMT_E_UNAVAILABLE, EOPNOTSUPP, "fuse", vmt_session_launch(s.session, s.image, options, NULL, &s.appliance, ERR));
    vmt_options_free(options);
    stage_launch(&s, NULL);
    stage_check(&s, 0, s.length);
    stage_close(&s);
    return test_end();
}
