/* What the system refuses gives VMT_E_PERMISSION, EACCES and the path. */
#include "test.h"

#define REFUSED(part, call) FAILS_AS(VMT_E_PERMISSION, EACCES, part, call)

int main(void) {
    uint8_t *content = test_content(3 * PIECE, 0);
    const char *disk = at("disk.img");
    test_write_file(disk, content, 3 * PIECE);
    vmt_image *image = test_publish(disk, NULL), *other = NULL;
    SAME(mkdir(at("closed"), 0700), 0);
    const char *inside = at("closed/disk.img"), *output = at("closed/out");
    test_write_file(inside, content, 3 * PIECE);
    free(content);
    SAME(chmod(at("closed"), 0), 0);
    SAME(chmod(at("."), 0755), 0);
    bool is_root = geteuid() == 0;
    /* In all threads. */
    if (is_root)
        SAME(seteuid(65534), 0);
    if (access(at("."), X_OK) != 0 && errno == EACCES)
        test_skip("the directory for temporary files is closed to others");

    vmt_profile *profile = NULL;
    REFUSED("closed/disk.img", vmt_publish(inside, NULL, test_no_progress, NULL, &other, ERR));
    REFUSED("closed/out", vmt_image_save(image, output, ERR));
    REFUSED("closed/disk.img", vmt_profile_load(inside, &profile, ERR));
    REFUSED("closed/disk.img", vmt_export(inside, "out", NULL, NULL, NULL, ERR));
    if (is_root)
        SAME(seteuid(0), 0);
    SAME(chmod(at("closed"), 0700), 0);
    CHECK(other == NULL && profile == NULL);
    vmt_image_free(image);
    return test_end();
}
