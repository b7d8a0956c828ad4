/* An image's description from a web server: it is read, and what goes wrong there is told apart. */
#include <poll.h>
#include <sys/socket.h>

#include "test.h"

static const uint8_t *torrent;
static size_t torrent_length;
static int listener;
static volatile bool over;

/* Answers by the path that is asked for. */
static void *serve(void *user) {
    (void)user;
    while (!over) {
        struct pollfd ready = {listener, POLLIN, 0};
        if (poll(&ready, 1, 50) <= 0)
            continue;
        int connection = accept(listener, NULL, NULL);
        char request[4096], head[256];
        ssize_t got = recv(connection, request, sizeof request - 1, 0);
        request[got > 0 ? got : 0] = 0;
        const char *body = "nothing", *status = "200 OK";
        size_t length = strlen(body);
        if (strstr(request, "/good.torrent") != NULL)
            body = (const char *)torrent, length = torrent_length;
        else if (strstr(request, "/absent") != NULL)
            status = "404 Not Found";
        else if (strstr(request, "/broken") != NULL)
            status = "500 Internal Server Error";
        if (strstr(request, "/noise") != NULL) {
            send(connection, "\1\2\3 not http\r\n\r\n", 16, MSG_NOSIGNAL);
        } else {
            int written = snprintf(head, sizeof head, "HTTP/1.1 %s\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n", status, length);
            send(connection, head, (size_t)written, MSG_NOSIGNAL);
            send(connection, body, length, MSG_NOSIGNAL);
        }
        close(connection);
    }
    return NULL;
}

int main(void) {
    const char *disk = at("disk.img");
    uint8_t *content = test_content(3 * PIECE, 0);
    test_write_file(disk, content, 3 * PIECE);
    free(content);
    vmt_image *image = test_publish(disk, NULL), *loaded = NULL;
    torrent = vmt_image_torrent(image, &torrent_length);
    char address[32], url[128];
    listener = test_silent_peer(address);
    pthread_t server;
    SAME(pthread_create(&server, NULL, serve, NULL), 0);
    vmt_session *session = test_session(at("cache"));

    snprintf(url, sizeof url, "http://%s/good.torrent", address);
    OK(vmt_session_load(session, url, NULL, NULL, &loaded, ERR));
    SAME_TEXT(vmt_image_info_hash(loaded), vmt_image_info_hash(image));
    vmt_image_free(loaded);
    loaded = NULL;
    snprintf(url, sizeof url, "http://%s/absent.torrent", address);
    FAILS_AS(VMT_E_NOT_FOUND, ENOENT, url, vmt_session_load(session, url, NULL, NULL, &loaded, ERR));
    snprintf(url, sizeof url, "http://%s/broken.torrent", address);
    FAILS_AS(VMT_E_NETWORK, EIO, url, vmt_session_load(session, url, NULL, NULL, &loaded, ERR));
    snprintf(url, sizeof url, "http://%s/noise.torrent", address);
    FAILS_AS(VMT_E_NETWORK, EIO, url, vmt_session_load(session, url, NULL, NULL, &loaded, ERR));
    snprintf(url, sizeof url, "http://%s/garbage.torrent", address);
    FAILS_AS(VMT_E_TORRENT, EINVAL, url, vmt_session_load(session, url, NULL, NULL, &loaded, ERR));
    over = true;
    pthread_join(server, NULL);
    close(listener);
    FAILS_AS(VMT_E_NETWORK, EIO, url, vmt_session_load(session, url, NULL, NULL, &loaded, ERR));
    CHECK(loaded == NULL);
    OK(vmt_session_shutdown(session, VMT_FOREVER, ERR));
    vmt_session_free(session);
    vmt_image_free(image);
    return test_end();
}
