/* An error that a completion was lent can be kept as a copy; errors live on their own, whatever becomes of their handles. */
#include "test.h"

static vmt_error *kept;
static volatile bool done;

static void keep(void *user, vmt_status status, uint64_t value, const vmt_error *error) {
    (void)user;
    SAME(status, VMT_E_CLOSED);
    SAME(value, 0);
    kept = vmt_error_copy(error);
    CHECK(kept != error);
    SAME_TEXT(vmt_error_message(kept), vmt_error_message(error));
}

static void finished(void *user) {
    (void)user;
    done = true;
}

int main(void) {
    stage s;
    stage_open_seed(&s, 0);
    vmt_session_free(s.source);
    vmt_seed_free(s.seed);
    s.source = NULL, s.seed = NULL;
    stage_launch(&s, NULL);
    char buffer[10];
    OK(vmt_aio_pread(s.appliance, 0, buffer, sizeof buffer, 0, (vmt_completion){keep, NULL, finished}, ERR));
    OK(vmt_appliance_shutdown(s.appliance, VMT_FOREVER, NULL, ERR));
    SOON(done);
    vmt_error *first = NULL, *copy;
    SAME(vmt_flush(s.appliance, 0, &first), VMT_E_CLOSED);
    stage_close(&s);

    copy = vmt_error_copy(first);
    const char *message = vmt_error_message(first);
    CHECK(message == vmt_error_message(first));
    SAME_TEXT(vmt_error_message(copy), message);
    vmt_error_free(first);
    SAME(vmt_error_status(copy), VMT_E_CLOSED);
    SAME(vmt_error_errno(copy), ESHUTDOWN);
    CHECK(vmt_error_message(copy)[0] != 0);
    vmt_error_free(copy);
    SAME(vmt_error_status(kept), VMT_E_CLOSED);
    SAME(vmt_error_errno(kept), ESHUTDOWN);
    vmt_error_free(kept);
    return test_end();
}
