/* What does not come in time gives VMT_E_TIMED_OUT: reads with the option `read-timeout` (errno EIO, for the guest), a magnet link's
 * description with `metadata-timeout`, and exports. */
#include "test.h"

int main(void) {
    stage s;
    stage_open_seed(&s, 0);
    /* A swarm that is dead. */
    vmt_session_free(s.source);
    vmt_seed_free(s.seed);
    s.source = NULL, s.seed = NULL;
    vmt_options *options = stage_options(&s);
    OK(vmt_options_set(options, "read-timeout", "0.3", ERR));
    OK(vmt_session_launch(s.session, s.image, options, NULL, &s.appliance, ERR));

    uint8_t buffer[100];
    size_t read = 77;
    double begin = test_now();
    FAILS_AS(VMT_E_TIMED_OUT, EIO, "", vmt_pread(s.appliance, 0, buffer, sizeof buffer, PIECE, &read, ERR));
    double waited = test_now() - begin;
    CHECK(waited >= 0.25 && waited < 10);
    SAME(read, 77);
    told told = TOLD;
    OK(vmt_aio_pread(s.appliance, 0, buffer, sizeof buffer, 0, told_completion(&told), ERR));
    SAME(told_wait(&told), VMT_E_TIMED_OUT);
    SAME(told.number, EIO);
    SAME(told.value, 0);
    CHECK(told.message[0] != 0);
    /* The edges of a write need the image too; whole blocks do not, nor do zeros. */
    FAILS_AS(VMT_E_TIMED_OUT, EIO, "", vmt_pwrite(s.appliance, 0, buffer, 10, 1, ERR));
    READS_ZEROS(s.appliance, PIECE, 3 * PIECE);
    OK(vmt_write_zeroes(s.appliance, 0, 0, 4096, ERR));
    READS_ZEROS(s.appliance, 4096, 0);
    OK(vmt_appliance_shutdown(s.appliance, VMT_FOREVER, NULL, ERR));
    vmt_appliance_free(s.appliance);
    s.appliance = NULL;

    uint64_t written = 77;
    FAILS_AS(VMT_E_TIMED_OUT, EIO, "", vmt_export(s.state, at("out.img"), options, NULL, &written, ERR));
    SAME(written, 77);
    CHECK(access(at("out.img"), F_OK) != 0);
    vmt_options_free(options);
    vmt_session_free(s.session);

    char address[32], magnet[256];
    int listener = test_silent_peer(address);
    options = test_session_options(at("cache5"));
    OK(vmt_options_set(options, "metadata-timeout", "0.3", ERR));
    OK(vmt_options_set(options, "peer", address, ERR));
    s.session = NULL;
    OK(vmt_session_start(options, &s.session, ERR));
    snprintf(magnet, sizeof magnet, "magnet:?xt=urn:btih:%s", vmt_image_info_hash(s.image));
    vmt_image *image = NULL;
    FAILS_AS(VMT_E_TIMED_OUT, EIO, "", vmt_session_load(s.session, magnet, options, NULL, &image, ERR));
    vmt_appliance *appliance = NULL;
    FAILS_AS(VMT_E_TIMED_OUT, EIO, "", vmt_launch(magnet, options, NULL, &appliance, ERR));
    CHECK(image == NULL && appliance == NULL);
    vmt_options_free(options);
    close(listener);
    stage_close(&s);
    return test_end();
}
