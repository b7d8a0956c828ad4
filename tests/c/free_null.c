/* Freeing NULL does nothing. */
#include "test.h"

int main(void) {
    for (int i = 0; i < 2; i++) {
        vmt_appliance_free(NULL);
        vmt_cancel_free(NULL);
        vmt_error_free(NULL);
        vmt_event_free(NULL);
        vmt_events_free(NULL);
        vmt_image_free(NULL);
        vmt_options_free(NULL);
        vmt_profile_free(NULL);
        vmt_report_free(NULL);
        vmt_seed_free(NULL);
        vmt_session_free(NULL);
        vmt_text_free(NULL);
    }
    return test_end();
}
