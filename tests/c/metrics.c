/* A session's figures can be had by HTTP, until it ends. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "test.h"

static int connected(const char *url) {
    int port = 0;
    SAME(sscanf(url, "http://127.0.0.1:%d/metrics", &port), 1);
    int connection = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in name = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    if (connect(connection, (struct sockaddr *)&name, sizeof name) == 0)
        return connection;
    close(connection);
    return -1;
}

int main(void) {
    stage s;
    stage_open(&s, 0, NULL);
    CHECK(vmt_session_metrics_url(s.session) == NULL);
    OK(vmt_session_serve_metrics(s.session, "127.0.0.1:0", ERR));
    const char *url = vmt_session_metrics_url(s.session);
    stage_check(&s, 0, s.length);
    int connection = connected(url);
    CHECK(connection >= 0);
    static const char request[] = "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    SAME(send(connection, request, sizeof request - 1, MSG_NOSIGNAL), sizeof request - 1);
    static char answer[65536];
    size_t length = 0;
    for (ssize_t got; length < sizeof answer - 1 && (got = recv(connection, answer + length, sizeof answer - 1 - length, 0)) > 0;)
        length += (size_t)got;
    close(connection);
    HAS(answer, "200 OK");
    HAS(answer, "# TYPE vmtorrent_");
    OK(vmt_session_shutdown(s.session, VMT_FOREVER, ERR));
    SAME(connected(url), -1);
    stage_close(&s);
    return test_end();
}
