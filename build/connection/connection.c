/* The worker's half of a call: everything between the wake-up and the plugin, and between the plugin and the response.
 *
 * It is C because an idle worker's memory is in no cache, and Python touches much memory for little work: C saves up
 * to 0.35 ms of each call. cni/warm/connection.py calls these functions. A process serves one call at a time, in one
 * thread.
 */
#define _GNU_SOURCE
#include "../launcher/protocol.h"
#include "peer.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#define TEXT_OF(number) WORDS(number)
#define WORDS(number) #number
#define IDLE_UMASK 022
#define MAX_DESCRIPTORS 253 /* the kernel's SCM_MAX_FD: no message carries more */

/* Returned in place of the length of a request; cni/warm/connection.py has the reasons as text. */
enum {
    NONE_PENDING = -1,
    PEER_DIFFERS = -2,
    NO_REQUEST_YET = -3,
    MALFORMED = -4,
    OTHER_BUILD = -5,
    NO_GO = -6,
    INTERRUPTED = -7,
    FAILED = -8
};

static int listener, null;
static const char *build;
static uid_t own_user;
static gid_t own_group;

static int peer_socket = -1, response_token = -1;
static int has_response_token;
static struct ucred peer;
static const char *difference; /* the property in which the peer differs from this process */
static mode_t caller_umask;
static char request[MAX_REQUEST];

/* Prepare this process; the strings must live as long as it. Returns -1 if that fails. */
int connection_setup(int listening_socket, const char *build_id)
{
    listener = listening_socket;
    build = build_id;
    own_user = geteuid();
    own_group = getegid();
    /* A process that listens again, as tests do, needs no second one. */
    if (null <= 0)
        null = open("/dev/null", O_RDWR | O_CLOEXEC);
    return null < 0 ? -1 : peer_setup();
}

int connection_peer_user(void) { return (int)peer.uid; }

int connection_peer_process(void) { return peer.pid; }

const char *connection_difference(void) { return difference; }

/* Return whether the peer had our user and group when it connected. `is_equal` compares the rest after the request is
 * accepted, while the launcher opens its descriptors. */
static int is_allowed(void)
{
    socklen_t size = sizeof peer;
    difference = "user";
    return getsockopt(peer_socket, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && peer.uid == own_user &&
           peer.gid == own_group;
}

/* Return whether the peer's process has our rights; if not, send it REFUSED: its call was not run. */
static int is_equal(void)
{
    char refused = REFUSED;
    difference = peer_difference(peer_socket, peer.pid);
    if (difference && send(peer_socket, &refused, 1, MSG_NOSIGNAL) < 0)
        errno = 0; /* the peer has exited */
    return !difference;
}

/* Return the string after `text`, NULL if `text` has no NUL before `end`. */
static const char *next_string(const char *text, const char *end)
{
    const char *nul = text ? memchr(text, 0, (size_t)(end - text)) : NULL;
    return nul ? nul + 1 : NULL;
}

/* Return the offset of name, executable and variables in the request, or the reason to refuse it. */
static int parse(size_t length)
{
    static const char head[] = MAGIC " " TEXT_OF(PROTOCOL_VERSION) " ";
    const char *end = request + length, *octal = request + sizeof head - 1;
    char *rest;
    if (length < sizeof head || memcmp(request, head, sizeof head - 1) != 0)
        return MALFORMED;
    if (end[-1] != 0 || !isdigit((unsigned char)*octal))
        return MALFORMED;
    unsigned long bits = strtoul(octal, &rest, 8);
    if (*rest)
        return MALFORMED;
    const char *peer_build = next_string(request, end), *name = next_string(peer_build, end);
    if (!next_string(next_string(name, end), end))
        return MALFORMED;
    caller_umask = (mode_t)bits & 0777;
    return strcmp(peer_build, build) == 0 ? (int)(name - request) : OTHER_BUILD;
}

/* Read the request and accept it. Returns the length of name, executable and variables, which are strings that each
 * end with a NUL, and sets `text` to them. Returns 0 if the caller has exited. */
static int receive(int flags, const char **text)
{
    struct iovec whole = {request, sizeof request};
    struct msghdr message = {.msg_iov = &whole, .msg_iovlen = 1};
    /* The kernel closes descriptors for which there is no space, and sets MSG_CTRUNC. */
    ssize_t received = recvmsg(peer_socket, &message, flags);
    if (received < 0)
        return errno == EAGAIN ? NO_REQUEST_YET : errno == EINTR ? INTERRUPTED : FAILED;
    if (received == 0)
        return 0;
    if (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC))
        return MALFORMED;
    int start = parse((size_t)received);
    if (start < 0)
        return start;
    char accepted = ACCEPTED;
    if (send(peer_socket, &accepted, 1, MSG_NOSIGNAL) != 1)
        return FAILED;
    *text = request + start;
    return (int)received - start;
}

/* Accept the next connection, unless another worker was faster, and read its request. */
int connection_accept(const char **text)
{
    peer_socket = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (peer_socket < 0)
        return errno == EAGAIN || errno == ECONNABORTED ? NONE_PENDING : errno == EINTR ? INTERRUPTED : FAILED;
    return is_allowed() ? receive(MSG_DONTWAIT, text) : PEER_DIFFERS;
}

static void set_timeout(int seconds)
{
    struct timeval timeout = {seconds, 0};
    setsockopt(peer_socket, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
}

/* Wait for the request of a connection for which connection_accept returned NO_REQUEST_YET. */
int connection_receive(int seconds, const char **text)
{
    if (!is_equal())
        return PEER_DIFFERS;
    set_timeout(seconds);
    return receive(0, text);
}

static void close_all(const int *fds, int count)
{
    for (int i = 0; i < count; i++)
        close(fds[i]);
}

/* Read GO. Returns the number of descriptors in `fds`, which the caller must close. */
static int receive_descriptors(int *fds)
{
    char go[2] = {0};
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(MAX_DESCRIPTORS * sizeof(int))];
    } control;
    struct iovec whole = {go, sizeof go};
    struct msghdr message = {
        .msg_iov = &whole, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    ssize_t received = recvmsg(peer_socket, &message, MSG_CMSG_CLOEXEC);
    if (received < 0)
        return errno == EINTR ? INTERRUPTED : NO_GO;
    int count = 0;
    struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
    if (rights && rights->cmsg_level == SOL_SOCKET && rights->cmsg_type == SCM_RIGHTS) {
        size_t bytes = rights->cmsg_len - CMSG_LEN(0);
        memcpy(fds, CMSG_DATA(rights), bytes);
        count = (int)(bytes / sizeof(int));
    }
    if (received == 1 && go[0] == GO && count == FDS && !(message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)))
        return count;
    close_all(fds, count);
    return NO_GO;
}

/* Wait for the caller's descriptors, and adopt its context: descriptors 0, 1, 2, working directory and umask. */
int connection_adopt_context(int seconds)
{
    int fds[MAX_DESCRIPTORS];
    if (!is_equal())
        return PEER_DIFFERS;
    set_timeout(seconds);
    int count = receive_descriptors(fds);
    if (count < 0)
        return count;
    /* The working directory comes first: if it is not a directory, nothing has changed yet. */
    int is_adopted = fchdir(fds[FOLDER_FD]) == 0;
    for (int fd = STDIN; is_adopted && fd <= STDERR; fd++)
        is_adopted = dup2(fds[fd], fd) == fd;
    close_all(fds, TOKEN_FD);
    response_token = fds[TOKEN_FD];
    umask(caller_umask);
    return is_adopted ? 0 : FAILED;
}

/* Return the events of poll(2) that the launcher's side has caused. */
int connection_poll(void)
{
    struct pollfd polled = {peer_socket, POLLRDHUP, 0};
    return poll(&polled, 1, 0) > 0 ? polled.revents : 0;
}

/* Return the signal that the launcher has passed on; SIGTERM if it did not send a number. */
int connection_stop_signal(void)
{
    char message[2];
    return recv(peer_socket, message, sizeof message, MSG_DONTWAIT) == 2 && message[0] == STOP ? message[1] : SIGTERM;
}

/* Let the kernel send SIGIO for later events; returns the events so far. */
int connection_watch(void)
{
    fcntl(peer_socket, F_SETOWN, getpid());
    fcntl(peer_socket, F_SETFL, O_RDWR | O_ASYNC);
    return connection_poll();
}

void connection_unwatch(void) { fcntl(peer_socket, F_SETFL, O_RDWR); }

/* Take the response token before the first output. A launcher that must print an error object takes it first. If it
 * has, it no longer waits for this worker, which kills itself as if the launcher had exited. */
void connection_take_response_token(void)
{
    eventfd_t value;
    if (!has_response_token && eventfd_read(response_token, &value) < 0 && errno == EAGAIN)
        kill(getpid(), SIGKILL);
    has_response_token = 1;
}

/* Release the caller's descriptors, so that its pipes reach their end, and its working directory and umask. */
void connection_restore_context(void)
{
    for (int fd = STDIN; fd <= STDERR; fd++)
        dup2(null, fd);
    if (chdir("/") < 0)
        _exit(1);
    umask(IDLE_UMASK);
}

/* Send the exit status. */
void connection_send_status(int status)
{
    char message[] = {STATUS, (char)status};
    if (send(peer_socket, message, sizeof message, MSG_NOSIGNAL) < 0)
        errno = 0; /* the launcher has exited */
}

/* Close the connection and the response token, if they are open. */
void connection_close(void)
{
    if (peer_socket >= 0)
        close(peer_socket);
    if (response_token >= 0)
        close(response_token);
    peer_socket = response_token = -1;
    has_response_token = 0;
}
