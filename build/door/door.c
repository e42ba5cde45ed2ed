/* The worker's half of a call: what is done between the wake-up and the plugin, and between the plugin and
 * the answer.
 *
 * A worker that has waited for a while finds none of its memory in a cache, and Python touches much of it for
 * little: here this takes up to 0.35 ms less of each call. cni/warm/connection.py is the other side.
 * There is one call at a time, and one thread.
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
#define AS_BEFORE_A_CALL 022
#define MOST_DESCRIPTORS 253 /* SCM_MAX_FD of the kernel: none comes that we do not see */

/* In place of the length of a call; door.py tells what each means. */
enum { TAKEN = -1, STRANGER = -2, SLOW = -3, ALIEN = -4, OTHER_BUILD = -5, NO_GO = -6, INTERRUPTED = -7, FAILED = -8 };

static int listener, null;
static const char *build;
static uid_t our_user;
static gid_t our_group;

static int connection = -1, right = -1;
static int is_answering;
static struct ucred peer;
static const char *difference; /* what is not ours about the peer */
static mode_t mask;
static char request[MAX_REQUEST];

/* Begin; the texts live as long as the process. Gives -1 where that cannot be. */
int door_open(int listening_socket, const char *name_of_build)
{
    listener = listening_socket;
    build = name_of_build;
    our_user = geteuid();
    our_group = getegid();
    /* A process that listens again, as tests do, needs no second one. */
    if (null <= 0)
        null = open("/dev/null", O_RDWR | O_CLOEXEC);
    return null < 0 ? -1 : peer_begin();
}

int door_peer(int wants_user) { return wants_user ? (int)peer.uid : peer.pid; }

const char *door_difference(void) { return difference; }

/* Whether the peer was our user when it connected. What else it is, `is_equal` compares when it has been told
 * that it is accepted: the launcher opens its descriptors meanwhile. */
static int is_allowed(void)
{
    socklen_t size = sizeof peer;
    difference = "user";
    return getsockopt(connection, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && peer.uid == our_user &&
           peer.gid == our_group;
}

/* Whether the peer's process may do what we may do; else it hears that its call was not run. */
static int is_equal(void)
{
    char refused = REFUSED;
    difference = peer_difference(connection, peer.pid);
    if (difference && send(connection, &refused, 1, MSG_NOSIGNAL) < 0)
        errno = 0; /* then it has gone */
    return !difference;
}

/* Give the text behind one, NULL where none ends before `end`. */
static const char *behind(const char *text, const char *end)
{
    const char *nul = text ? memchr(text, 0, (size_t)(end - text)) : NULL;
    return nul ? nul + 1 : NULL;
}

/* Give where name, executable and variables of a call begin, as an offset; else why it is none for us. */
static int parse(size_t length)
{
    static const char head[] = MAGIC " " TEXT_OF(PROTOCOL_VERSION) " ";
    const char *end = request + length, *octal = request + sizeof head - 1;
    char *rest;
    if (length < sizeof head || memcmp(request, head, sizeof head - 1) != 0)
        return ALIEN;
    if (end[-1] != 0 || !isdigit((unsigned char)*octal))
        return ALIEN;
    unsigned long bits = strtoul(octal, &rest, 8);
    if (*rest)
        return ALIEN;
    const char *theirs = behind(request, end), *name = behind(theirs, end);
    if (!behind(behind(name, end), end))
        return ALIEN;
    mask = (mode_t)bits & 0777;
    return strcmp(theirs, build) == 0 ? (int)(name - request) : OTHER_BUILD;
}

/* Read the call of the connection and accept it. Gives the length of name, executable and variables, which
 * are texts that each end with a NUL, and sets `text` to them; 0 when the caller has gone. */
static int receive(int flags, const char **text)
{
    struct iovec whole = {request, sizeof request};
    struct msghdr message = {.msg_iov = &whole, .msg_iovlen = 1};
    /* The kernel closes descriptors for which there is no space, and says so. */
    ssize_t got = recvmsg(connection, &message, flags);
    if (got < 0)
        return errno == EAGAIN ? SLOW : errno == EINTR ? INTERRUPTED : FAILED;
    if (got == 0)
        return 0;
    if (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC))
        return ALIEN;
    int start = parse((size_t)got);
    if (start < 0)
        return start;
    char accepted = ACCEPTED;
    if (send(connection, &accepted, 1, MSG_NOSIGNAL) != 1)
        return FAILED;
    *text = request + start;
    return (int)got - start;
}

/* Take the next call, if none of the other workers has. */
int door_take(const char **text)
{
    connection = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (connection < 0)
        return errno == EAGAIN || errno == ECONNABORTED ? TAKEN : errno == EINTR ? INTERRUPTED : FAILED;
    return is_allowed() ? receive(MSG_DONTWAIT, text) : STRANGER;
}

static void limit(int seconds)
{
    struct timeval most = {seconds, 0};
    setsockopt(connection, SOL_SOCKET, SO_RCVTIMEO, &most, sizeof most);
}

/* Wait for the call of one that was SLOW, if it may make any. */
int door_wait(int seconds, const char **text)
{
    if (!is_equal())
        return STRANGER;
    limit(seconds);
    return receive(0, text);
}

static void close_all(const int *fds, int count)
{
    for (int at = 0; at < count; at++)
        close(fds[at]);
}

/* Read GO; gives how many descriptors came, all of which are ours to close. */
static int receive_descriptors(int *fds)
{
    char go[2] = {0};
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(MOST_DESCRIPTORS * sizeof(int))];
    } control;
    struct iovec whole = {go, sizeof go};
    struct msghdr message = {
        .msg_iov = &whole, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    ssize_t got = recvmsg(connection, &message, MSG_CMSG_CLOEXEC);
    if (got < 0)
        return errno == EINTR ? INTERRUPTED : NO_GO;
    int count = 0;
    struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
    if (rights && rights->cmsg_level == SOL_SOCKET && rights->cmsg_type == SCM_RIGHTS) {
        size_t bytes = rights->cmsg_len - CMSG_LEN(0);
        memcpy(fds, CMSG_DATA(rights), bytes);
        count = (int)(bytes / sizeof(int));
    }
    if (got == 1 && go[0] == GO && count == FDS && !(message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)))
        return count;
    close_all(fds, count);
    return NO_GO;
}

/* Wait for the descriptors and be the caller's process: they are ours, and its folder and umask. */
int door_begin(int seconds)
{
    int fds[MOST_DESCRIPTORS];
    if (!is_equal())
        return STRANGER;
    limit(seconds);
    int count = receive_descriptors(fds);
    if (count < 0)
        return count;
    /* First the folder: where that is none, nothing has changed. */
    int begun = fchdir(fds[FOLDER_FD]) == 0;
    for (int at = STDIN; begun && at <= STDERR; at++)
        begun = dup2(fds[at], at) == at;
    close_all(fds, RIGHT);
    right = fds[RIGHT];
    umask(mask);
    return begun ? 0 : FAILED;
}

/* What has happened to the launcher, as events of poll(2). */
int door_look(void)
{
    struct pollfd seen = {connection, POLLRDHUP, 0};
    return poll(&seen, 1, 0) > 0 ? seen.revents : 0;
}

/* The signal that the launcher has passed on: SIGTERM where it does not say. */
int door_stop(void)
{
    char message[2];
    return recv(connection, message, sizeof message, MSG_DONTWAIT) == 2 && message[0] == STOP ? message[1] : SIGTERM;
}

/* From now on a SIGIO comes when that changes. */
int door_watch(void)
{
    fcntl(connection, F_SETOWN, getpid());
    fcntl(connection, F_SETFL, O_RDWR | O_ASYNC);
    return door_look();
}

void door_unwatch(void) { fcntl(connection, F_SETFL, O_RDWR); }

/* Take the right to print the one document of the call: a launcher that has to answer in our place does so only as
 * long as it is there. One that has taken it has given up, and ends with us as if it were gone. */
void door_begin_answer(void)
{
    eventfd_t taken;
    if (!is_answering && eventfd_read(right, &taken) < 0 && errno == EAGAIN)
        kill(getpid(), SIGKILL);
    is_answering = 1;
}

/* Let go of all that is the caller's: its pipes reach their end. */
void door_leave(void)
{
    for (int at = STDIN; at <= STDERR; at++)
        dup2(null, at);
    if (chdir("/") < 0)
        _exit(1);
    umask(AS_BEFORE_A_CALL);
}

/* Tell the exit status; a launcher that has gone does not hear it. */
void door_answer(int status)
{
    char message[] = {STATUS, (char)status};
    if (send(connection, message, sizeof message, MSG_NOSIGNAL) < 0)
        errno = 0;
}

/* End the connection and forget the right to answer, if they are there. */
void door_close(void)
{
    if (connection >= 0)
        close(connection);
    if (right >= 0)
        close(right);
    connection = right = -1;
    is_answering = 0;
}
