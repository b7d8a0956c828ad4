/* A value that makes no sense is refused with the key, the value and an example of a good one; good ones are taken. */
#include "test.h"

int main(void) {
    static const struct {
        const char *key, *value, *remedy;
    } bad[] = {
        {"listen", "localhost:1", "192.0.2.7:6881"},
        {"listen", "127.0.0.1", "192.0.2.7:6881"},
        {"listen", "", "192.0.2.7:6881"},
        {"cache", "", "at least one character"},
        {"download-limit", "fast", "12500000"},
        {"download-limit", "-1", "12500000"},
        {"download-limit", "+1", "12500000"},
        {"download-limit", "1e6", "12500000"},
        {"download-limit", "18446744073709551616", "12500000"},
        {"upload-limit", " 1", "12500000"},
        {"upload-slots", "many", "0 for no limit"},
        {"discovery", "yes", "true or false"},
        {"local-discovery", "1", "true or false"},
        {"dht", "1", "true or false"},
        {"dht-bootstrap", "dht.example.org", "dht.example.org:6881"},
        {"utp", "no", "true or false"},
        {"peer-exchange", "off", "true or false"},
        {"profile-exchange", "", "true or false"},
        {"compression", "off", "true or false"},
        {"compression-cache", "64M", "10737418240"},
        {"max-connections", "0", "1 to 65535"},
        {"max-connections", "65536", "1 to 65535"},
        {"metadata-timeout", "-1", "seconds"},
        {"metadata-timeout", "inf", "seconds"},
        {"metadata-timeout", "nan", "seconds"},
        {"metadata-timeout", "1e30", "seconds"},
        {"max-disk", "1G", "10737418240"},
        {"state", "", "at least one character"},
        {"ephemeral", "maybe", "true or false"},
        {"mount", "", "at least one character"},
        {"allow-other", "TRUE", "true or false"},
        {"peer", "127.0.0.1", "192.0.2.7:6881"},
        {"peer", "example.org:6881", "192.0.2.7:6881"},
        {"peer", "127.0.0.1:65536", "192.0.2.7:6881"},
        {"fill", "some", "none, idle or full"},
        {"profile", "", "at least one character"},
        {"auto-profile", "on", "true or false"},
        {"record", "", "at least one character"},
        {"read-timeout", "soon", "seconds"},
        {"trace", "", "at least one character"},
        {"name", "", "at least one character"},
        {"piece-size", "small", "65536"},
        {"tracker", "", "at least one character"},
        {"web-seed", "", "at least one character"},
        {"private", "no", "true or false"},
    };
    vmt_options *options = test_options("fill", "none", NULL);
    char quoted[64];
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        FAILS_AS(VMT_E_INVALID, EINVAL, bad[i].remedy, vmt_options_set(options, bad[i].key, bad[i].value, ERR));
        snprintf(quoted, sizeof quoted, "%s", bad[i].key);
        HAS(test_message(), quoted);
        HAS(test_message(), bad[i].value);
    }
    static const char *const good[][2] = {
        {"listen", "127.0.0.1:0"},     {"listen", "[::1]:0"},       {"cache", "/tmp/x"},
        {"download-limit", "0"},       {"upload-limit", "18446744073709551615"},
        {"upload-slots", "0"},         {"upload-slots", "65535"},
        {"discovery", "true"},         {"local-discovery", "false"}, {"profile-exchange", "false"},
        {"max-connections", "65535"},  {"metadata-timeout", "0.5"}, {"max-disk", "0"},
        {"state", "x"},                {"ephemeral", "true"},       {"ephemeral", "false"},
        {"mount", "x"},                {"allow-other", "true"},     {"peer", "127.0.0.1:1"},
        {"peer", "[::1]:1"},           {"fill", "none"},            {"fill", "idle"},
        {"fill", "full"},              {"profile", "x"},            {"auto-profile", "false"},
        {"record", "x"},               {"read-timeout", "0"},       {"trace", "x"},
        {"name", "x"},                 {"piece-size", "16384"},     {"tracker", "http://127.0.0.1:1/announce"},
        {"web-seed", "http://127.0.0.1:1/"}, {"private", "true"}, {"compression", "false"},
        {"compression-cache", "0"},
    };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        OK(vmt_options_set(options, good[i][0], good[i][1], ERR));
    vmt_options_free(options);

    /* What only shows when it is used. */
    const char *disk = at("disk.img");
    test_write_file(disk, "0123456789", 10);
    vmt_image *image = NULL;
    options = test_options("piece-size", "1000", NULL);
    FAILS_AS(VMT_E_INVALID, EINVAL, "16 KiB", vmt_publish(disk, options, test_no_progress, NULL, &image, ERR));
    vmt_options_free(options);
    options = test_options("tracker", "not a url", NULL);
    FAILS_AS(VMT_E_INVALID, EINVAL, "not a url", vmt_publish(disk, options, test_no_progress, NULL, &image, ERR));
    vmt_options_free(options);
    options = test_options("name", "../up", NULL);
    FAILS_AS(VMT_E_INVALID, EINVAL, "../up", vmt_publish(disk, options, test_no_progress, NULL, &image, ERR));
    vmt_options_free(options);
    CHECK(image == NULL);
    return test_end();
}
