/* A full disk gives VMT_E_NO_SPACE and ENOSPC; nothing that was acknowledged is lost, and it goes on when there is space again. */
#include <sched.h>
#include <sys/mount.h>

#include "test.h"

int main(void) {
    /* A small disk, in a view of the file systems that ends with this process. */
    if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", "none", MS_REC | MS_PRIVATE, NULL) != 0)
        test_skip("mounting a small file system needs root");
    enum { DISK = 2 << 20, STEP = 65536, LENGTH = 4 << 20 };
    SAME(mkdir(at("small"), 0700), 0);
    if (mount("none", at("small"), "tmpfs", 0, "size=2m") != 0)
        test_skip("mounting a small file system needs root");
    stage s;
    stage_open(&s, LENGTH, "state", at("small/state"), NULL);

    uint8_t *data = test_content(STEP, 5);
    memset(data + 3 * PIECE, 0x55, PIECE);
    uint64_t end = 0;
    vmt_status status = VMT_OK;
    while (end < LENGTH) {
        test_reset();
        if ((status = vmt_pwrite(s.appliance, 0, data, STEP, end, ERR)) != VMT_OK)
            break;
        if ((status = vmt_flush(s.appliance, 0, ERR)) != VMT_OK)
            break;
        end += STEP;
    }
    test_fails(__FILE__, __LINE__, "writing to a full disk", status, VMT_E_NO_SPACE);
    SAME(vmt_error_errno(test_error), ENOSPC);
    HAS(test_message(), "disk.img");
    CHECK(end > 0);
    for (uint64_t offset = 0; offset < end; offset += STEP)
        READS(s.appliance, data, STEP, offset);
    told told = TOLD;
    vmt_completion completion = told_completion(&told);
    OK(vmt_aio_pwrite(s.appliance, 0, data, STEP, LENGTH - STEP, completion, ERR));
    SAME(told_wait(&told), VMT_E_NO_SPACE);
    SAME(told.number, ENOSPC);

    /* What is saved there has no room either. */
    int filler = open(at("small/filler"), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    while (write(filler, data, 4096) > 0)
        ;
    close(filler);
    FAILS_AS(VMT_E_NO_SPACE, ENOSPC, "small/x.torrent", vmt_image_save(s.image, at("small/x.torrent"), ERR));
    CHECK(access(at("small/x.torrent"), F_OK) != 0);
    unlink(at("small/filler"));

    SAME(mount("none", at("small"), "tmpfs", MS_REMOUNT, "size=16m"), 0);
    OK(vmt_pwrite(s.appliance, 0, data, STEP, end, ERR));
    OK(vmt_flush(s.appliance, 0, ERR));
    READS(s.appliance, data, STEP, end);
    free(data);
    stage_close(&s);
    SAME(umount(at("small")), 0);
    return test_end();
}
