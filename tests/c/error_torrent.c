/* What is no .torrent file, or half of one, gives VMT_E_TORRENT; one that is damaged is refused or read, and breaks nothing. */
#include "test.h"

int main(void) {
    const char *disk = at("disk.img");
    uint8_t *content = test_content(5 * PIECE, 0);
    test_write_file(disk, content, 5 * PIECE);
    free(content);
    vmt_image *good = test_publish(disk, NULL), *image = NULL;
    size_t length;
    const uint8_t *torrent = vmt_image_torrent(good, &length);

    FAILS_AS(VMT_E_TORRENT, EINVAL, "", vmt_image_from_bytes(NULL, 0, &image, ERR));
    for (size_t cut = 1; cut < length; cut++) {
        /* Memory of just that length: the checker sees what is read behind. */
        uint8_t *part = malloc(cut);
        memcpy(part, torrent, cut);
        FAILS_AS(VMT_E_TORRENT, EINVAL, "", vmt_image_from_bytes(part, cut, &image, ERR));
        free(part);
    }
    uint8_t *damaged = malloc(length);
    for (size_t i = 0; i < length; i++) {
        memcpy(damaged, torrent, length);
        damaged[i] ^= 1 << i % 8;
        test_reset();
        vmt_status status = vmt_image_from_bytes(damaged, length, &image, ERR);
        if (status == VMT_OK) {
            vmt_image_free(image);
            image = NULL;
        } else {
            SAME(status, VMT_E_TORRENT);
        }
    }
    free(damaged);

    /* A name that leads out of the directory. */
    static const char hostile[] = "d4:infod6:lengthi16384e4:name5:../up12:piece lengthi16384e6:pieces20:aaaaaaaaaaaaaaaaaaaaee";
    FAILS(VMT_E_TORRENT, vmt_image_from_bytes((const uint8_t *)hostile, sizeof hostile - 1, &image, ERR));
    const char *path = at("bad.torrent");
    test_write_file(path, "nothing", 7);
    vmt_session *session = test_session(at("cache"));
    FAILS_AS(VMT_E_TORRENT, EINVAL, "bad.torrent", vmt_session_load(session, path, NULL, NULL, &image, ERR));
    vmt_appliance *appliance = NULL;
    vmt_options *options = test_session_options(at("cache2"));
    FAILS_AS(VMT_E_TORRENT, EINVAL, "bad.torrent", vmt_launch(path, options, NULL, &appliance, ERR));
    vmt_options_free(options);
    CHECK(image == NULL && appliance == NULL);
    OK(vmt_session_shutdown(session, VMT_FOREVER, ERR));
    vmt_session_free(session);
    vmt_image_free(good);
    return test_end();
}
