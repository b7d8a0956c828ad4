/* The keys of options can be listed, with a help for each, and are those that the header names. */
#include "test.h"

int main(void) {
    static const char *const known[] = {
        "listen",     "cache",       "download-limit", "upload-limit", "discovery",    "local-discovery",
        "dht", "dht-bootstrap", "utp", "peer-exchange", "profile-exchange", "max-connections", "metadata-timeout", "max-disk", "state", "ephemeral",
        "mount",      "allow-other", "peer",           "fill",         "profile",      "auto-profile",
        "upload-slots", "record",     "read-timeout", "trace",         "name",         "piece-size",   "tracker",
        "web-seed",   "private",     "compression",    "compression-cache",
    };
    size_t count = 0;
    for (const char *key; (key = vmt_option_key(count)) != NULL; count++) {
        const char *help = vmt_option_help(count);
        CHECK(help != NULL && strlen(help) > 10);
        CHECK(vmt_option_key(count) == key && vmt_option_help(count) == help);
        bool found = false;
        for (size_t i = 0; i < sizeof known / sizeof *known; i++)
            found = found || strcmp(known[i], key) == 0;
        CHECK(found);
        for (size_t other = 0; other < count; other++)
            CHECK(strcmp(vmt_option_key(other), key) != 0);
    }
    SAME(count, sizeof known / sizeof *known);
    CHECK(vmt_option_help(count) == NULL);
    CHECK(vmt_option_key(SIZE_MAX) == NULL && vmt_option_help(SIZE_MAX) == NULL);
    return test_end();
}
