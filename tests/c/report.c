/* A report of a launch: it tells the phases that were marked and what was read, can be written again and again, holds nothing
 * that asks for anything elsewhere, follows one appliance alone, and keeps no session. */
#include "test.h"

static char *page(const vmt_report *report, const vmt_appliance *appliance, uint64_t rate) {
    size_t length;

    OK(vmt_report_write(report, appliance, rate, at("report.html"), ERR));
    char *text = (char *)test_read_file(at("report.html"), &length);
    SAME(strlen(text), length);
    CHECK(length < 1000000);
    HAS(text, "<!doctype html>");
    HAS(text, "</html>\n");
    CHECK(strstr(text, "<script") == NULL && strstr(text, "http:") == NULL && strstr(text, "https:") == NULL && strstr(text, "src=") == NULL);
    return text;
}

int main(void) {
    /* Before any session: the pool of one that seeds grows and shrinks as it likes. */
    int threads = test_threads_settled();
    stage s;
    stage_open_seed(&s, 0);
    vmt_session_free(s.session);

    vmt_report *report = NULL, *other = NULL;
    OK(vmt_report_begin(&report, ERR));
    s.session = test_session(s.cache);
    OK(vmt_report_mark(report, VMT_PHASE_SESSION, ERR));
    OK(vmt_report_mark(report, VMT_PHASE_IMAGE, ERR));
    stage_launch(&s, NULL);
    OK(vmt_report_mark(report, VMT_PHASE_APPLIANCE, ERR));
    FAILS_AS(VMT_E_INVALID, EINVAL, "vmt_report_follow", vmt_report_write(report, s.appliance, 0, at("none.html"), ERR));
    OK(vmt_report_follow(report, s.appliance, ERR));
    FAILS_AS(VMT_E_INVALID, EINVAL, "already", vmt_report_follow(report, s.appliance, ERR));
    OK(vmt_report_mark(report, VMT_PHASE_VMM, ERR));
    FAILS_AS(VMT_E_INVALID, EINVAL, "phase 5", vmt_report_mark(report, 5, ERR));
    FAILS(VMT_E_INVALID, vmt_report_mark(report, 0, ERR));

    char *text = page(report, s.appliance, 0);
    HAS(text, "disk.img");
    HAS(text, "nothing was read");
    free(text);
    stage_check(&s, 0, s.length);
    /* Looked at by itself meanwhile. */
    test_sleep(200);
    text = page(report, s.appliance, 12500000);
    HAS(text, "100 Mbit/s");
    HAS(text, "VMM: process started");
    HAS(text, "<td>first read</td>");
    HAS(text, vmt_image_info_hash(s.image));
    CHECK(strstr(text, "nothing was read") == NULL);
    free(text);

    FAILS_AS(VMT_E_NOT_FOUND, ENOENT, "absent/report.html",
             vmt_report_write(report, s.appliance, 0, at("absent/report.html"), ERR));
    FAILS(VMT_E_UTF8, vmt_report_write(report, s.appliance, 0, "\xff", ERR));
    CHECK(access(at("none.html"), F_OK) != 0);

    stage_lose_seed(&s);
    /* Freed while it follows; the other one outlives what it follows. */
    vmt_report_free(report);
    OK(vmt_report_begin(&other, ERR));
    OK(vmt_report_follow(other, s.appliance, ERR));
    OK(vmt_appliance_shutdown(s.appliance, VMT_FOREVER, NULL, ERR));
    FAILS(VMT_E_CLOSED, vmt_report_write(other, s.appliance, 0, at("none.html"), ERR));
    OK(vmt_session_shutdown(s.session, VMT_FOREVER, ERR));
    vmt_appliance_free(s.appliance);
    vmt_session_free(s.session);
    s.appliance = NULL;
    s.session = NULL;
    SOON(test_threads() == threads);
    vmt_report_free(other);

    /* Freed without a shutdown while it is followed: no thread stays. */
    OK(vmt_report_begin(&other, ERR));
    s.session = test_session(s.cache);
    stage_launch(&s, NULL);
    OK(vmt_report_follow(other, s.appliance, ERR));
    test_sleep(100);
    vmt_session_free(s.session);
    vmt_appliance_free(s.appliance);
    s.appliance = NULL;
    s.session = NULL;
    SOON(test_threads() == threads);
    vmt_report_free(other);
    stage_close(&s);
    return test_end();
}
