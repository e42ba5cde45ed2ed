/* One program under each plugin's name: hands the call to a waiting worker, or runs the bundle.
 *
 * A call is name, environment, working directory, umask and descriptors 0, 1, 2. They go in one message to
 * a worker of the warm server that belongs to this build and to these namespaces; the worker is the
 * plugin from then on, and its exit status is ours. Where no server may or can live, the bundle is executed in
 * place. A call is never run twice: once the worker has the descriptors (GO) there is no way back to the
 * bundle. protocol.md in this folder has the messages and the key; every failure of our own is one CNI
 * error object.
 */
#define _GNU_SOURCE
#include "launcher.h"
#include "protocol.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define OFF_FILE "/etc/cni/pycni/warm-off"
#define FEW_DESCRIPTORS 256
#define MOST_SECONDS (24 * 60 * 60)
#define FIRST_LOOK_MS 100
#define LOOK_MS 900
#define NOT_RUN -1 /* in place of an exit status */

/* `make install` writes the texts behind the marks, so that nothing must be read to find them: the bundle's absolute
 * path, and its path from the launcher's own folder if it lies below that. The second comes first, so that a copy or
 * another mount of the folder works. */
static volatile char tree[272] = "@PYCNI-TREE@:";
static volatile char below[272] = "@PYCNI-BELOW@:";
static volatile char build[48] = "@PYCNI-BUILD@:";

struct request {
    char bytes[MAX_REQUEST];
    size_t length;
};

static const char *name;      /* the plugin: what we were called as */
static char executable[4096]; /* our own file */
static int connection = -1;
static int right = -1; /* to print the one document: an eventfd of 1, and whoever reads it has the right */
static volatile sig_atomic_t is_stopped;

static const char *installed(volatile char *text) { return strchr((char *)text, ':') + 1; }

const char *build_id(void) { return installed(build); }

/* Copy text into a JSON string; what could end the string becomes "?". */
static void make_safe(char *safe, size_t size, const char *text)
{
    snprintf(safe, size, "%s", text);
    for (char *each = safe; *each; each++)
        if (*each < ' ' || *each == '"' || *each == '\\' || *each > '~')
            *each = '?';
}

static int fail(int code, const char *what, const char *details)
{
    char safe[32];
    make_safe(safe, sizeof safe, name);
    printf("{\"cniVersion\":\"1.1.0\",\"code\":%d,\"msg\":\"plugin %s: %s\",\"details\":\"%s\"}\n", code, safe, what,
           details);
    fflush(stdout);
    return 1;
}

static int fail_without_bundle(const char *bundle, int reason)
{
    char safe[4400], what[4600];
    make_safe(safe, sizeof safe, bundle);
    snprintf(what, sizeof what, "could not execute %s: %s", safe, strerror(reason));
    if (reason == EACCES || reason == EPERM)
        return fail(5, what, "Make it executable: mount its file system without noexec, and check its permissions.");
    return fail(5, what, "Run \\\"make install\\\" again, or copy the bundle's folder together with the executables.");
}

int run_bundle(char **argv)
{
    char bundle[4400] = "";
    const char *slash = strrchr(executable, '/');
    if (*installed(below) && slash) {
        snprintf(bundle, sizeof bundle, "%.*s/%s/pycni", (int)(slash - executable), executable, installed(below));
        execv(bundle, argv);
        if (errno != ENOENT && errno != ENOTDIR)
            return fail_without_bundle(bundle, errno);
    }
    char elsewhere[300];
    snprintf(elsewhere, sizeof elsewhere, "%s/pycni", installed(tree));
    execv(elsewhere, argv);
    return fail_without_bundle(*bundle && errno == ENOENT ? bundle : elsewhere, errno);
}

static int run_cold(char **argv)
{
    setenv("PYCNI_NAME", name, 1);
    setenv("PYCNI_EXECUTABLE", executable, 1);
    return run_bundle(argv);
}

/* ---- may this call be warm? ---- */

static int is_off(void)
{
    const char *warm = getenv("PYCNI_WARM");
    return (warm && (strcmp(warm, "off") == 0 || strcmp(warm, "0") == 0)) || access(OFF_FILE, F_OK) == 0;
}

/* Limits bind a process; a worker would not be bound by those of its caller. */
static int is_limited(void)
{
    static const int kinds[] = {RLIMIT_AS, RLIMIT_CPU, RLIMIT_DATA, RLIMIT_FSIZE};
    struct rlimit limit;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (getrlimit(kinds[i], &limit) < 0 || limit.rlim_cur != RLIM_INFINITY)
            return 1;
    return getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur < FEW_DESCRIPTORS;
}

/* Else a file of ours takes the number of one that the caller has closed. */
static int ensure_standard_descriptors(void)
{
    for (int fd = 0; fd < 3; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) != fd)
            return 0;
    return 1;
}

/* The interpreter ends with a fatal error, and without an error object, if stdin is a directory. */
static int is_directory(int fd)
{
    struct stat found;
    return fstat(fd, &found) == 0 && S_ISDIR(found.st_mode);
}

/* Verbs that read no configuration go on with an empty one. */
static int replace_directory_as_stdin(void)
{
    const char *verb = getenv("CNI_COMMAND");
    int null = !verb || !*verb || strcmp(verb, "VERSION") == 0 ? open("/dev/null", O_RDWR | O_CLOEXEC) : -1;
    return null >= 0 && dup2(null, 0) == 0;
}

/* ---- one call ---- */

static int append(struct request *request, const char *text)
{
    size_t size = strlen(text) + 1;
    if (request->length + size > sizeof request->bytes)
        return 0;
    memcpy(request->bytes + request->length, text, size);
    request->length += size;
    return 1;
}

static int send_call(void)
{
    static struct request request;
    char head[32];
    mode_t mask = umask(0);
    umask(mask);
    snprintf(head, sizeof head, MAGIC " %d %o", PROTOCOL_VERSION, (unsigned)mask);
    if (!append(&request, head) || !append(&request, build_id()) || !append(&request, name) ||
        !append(&request, executable))
        return 0;
    for (char **each = environ; *each; each++)
        if (!append(&request, *each))
            return 0;
    return send(connection, request.bytes, request.length, MSG_NOSIGNAL) == (ssize_t)request.length;
}

/* Let the worker begin. Not sooner: what is sent to nobody keeps the caller's pipes open. */
static int send_descriptors(void)
{
    int folder = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    int fds[] = {0, 1, 2, folder, right};
    char go = GO, control[CMSG_SPACE(sizeof fds)] = {0};
    struct iovec text = {&go, 1};
    struct msghdr message = {.msg_iov = &text, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(sizeof fds);
    memcpy(CMSG_DATA(rights), fds, sizeof fds);
    int is_sent = folder >= 0 && sendmsg(connection, &message, MSG_NOSIGNAL) == 1;
    close(folder);
    return is_sent;
}

/* A runtime that wants us to stop gets an undone ADD: the worker sees that we will say no more. */
static void pass_on(int number)
{
    int saved = errno;
    char stop[] = {STOP, (char)number};
    is_stopped = 1;
    send(connection, stop, sizeof stop, MSG_NOSIGNAL | MSG_DONTWAIT);
    shutdown(connection, SHUT_WR);
    errno = saved;
}

/* Give the next message, 0 for the end, -1 for none in time. */
static int next_message(unsigned char *message, size_t size, int timeout_ms)
{
    struct timespec start, now;
    clock_gettime(CLOCK_MONOTONIC, &start);
    for (;;) {
        clock_gettime(CLOCK_MONOTONIC, &now);
        int left = timeout_ms - (int)((now.tv_sec - start.tv_sec) * 1000 + (now.tv_nsec - start.tv_nsec) / 1000000);
        struct pollfd wait = {connection, POLLIN, 0};
        int ready = left <= 0 ? 0 : poll(&wait, 1, left);
        if (ready == 0)
            return -1;
        if (ready < 0)
            continue; /* EINTR: a signal was passed on */
        ssize_t got = recv(connection, message, size, MSG_DONTWAIT);
        /* A worker that closes before it reads what we sent resets the connection; what it has sent is there still. */
        if (got < 0 && errno == ECONNRESET)
            got = recv(connection, message, size, MSG_DONTWAIT);
        return got < 0 ? 0 : (int)got;
    }
}

static int seconds(const char *variable, int otherwise)
{
    const char *text = getenv(variable);
    long value = text ? strtol(text, NULL, 10) : 0;
    if (value <= 0)
        return otherwise;
    return value < MOST_SECONDS ? (int)value : MOST_SECONDS; /* poll(2) counts milliseconds in an int */
}

/* Wait for a worker; of a server that does not run meanwhile only for a second. */
static int is_accepted(void)
{
    unsigned char message[2];
    int limit = seconds("PYCNI_WARM_ACCEPT_S", 10) * 1000, pid = server_of(connection);
    int got = next_message(message, sizeof message, FIRST_LOOK_MS);
    uint64_t work = 0;
    for (int waited = FIRST_LOOK_MS; got < 0 && waited < limit; waited += LOOK_MS) {
        uint64_t before = work_of_server(pid);
        got = next_message(message, sizeof message, LOOK_MS);
        work = work_of_server(pid);
        if (before && work == before)
            break;
        work = 0;
    }
    if (got < 0)
        give_up(pid, work);
    return got == 1 && message[0] == ACCEPTED;
}

/* Print no error object where the worker may have printed: it would be a second document. */
static int fail_for_worker(const char *what)
{
    eventfd_t taken;
    if (eventfd_read(right, &taken) == 0)
        return fail(11, what, "DEL removes what it may have made");
    signal(SIGPIPE, SIG_IGN);
    dprintf(STDERR_FILENO, "pycni: plugin %s: %s, when it had begun to answer; DEL removes what it may have made\n", name,
            what);
    return 1;
}

/* Return the exit status of the plugin, or NOT_RUN when the worker refuses to be it. */
static int status_of_worker(void)
{
    unsigned char message[2];
    int got = next_message(message, sizeof message, seconds("PYCNI_WARM_ANSWER_S", 600) * 1000);
    if (got == 2 && message[0] == STATUS)
        return message[1];
    if (got == 1 && message[0] == REFUSED)
        return NOT_RUN;
    return fail_for_worker(got < 0 ? "its worker did not answer in time and was ended"
                                   : "its worker was killed in the middle of the call");
}

/* For systemd: where the socket belongs, and the server on a socket that systemd has bound. */
static int run_option(const char *option)
{
    if (!find_place())
        return fail(5, "there is no private folder", FOLDER);
    return strcmp(option, "--warm-server") == 0 ? serve() : puts(socket_path) < 0;
}

int main(int argc, char **argv)
{
    const char *slash = argc > 0 ? strrchr(argv[0], '/') : NULL;
    name = argc > 0 ? (slash ? slash + 1 : argv[0]) : "";
    if (readlink("/proc/self/exe", executable, sizeof executable - 1) <= 0)
        snprintf(executable, sizeof executable, "%s", name);
    if (argc == 2 && strncmp(argv[1], "--warm-", 7) == 0)
        return run_option(argv[1]);
    if (is_directory(0) && !replace_directory_as_stdin())
        return fail(5, "could not read the network configuration from stdin: is a directory",
                    "Open stdin for reading: a file, a pipe or a socket with one JSON object.");
    if (!ensure_standard_descriptors() || is_off() || is_limited() || !find_place() || is_given_up())
        return run_cold(argv);
    connection = connect_to_server();
    if (connection == NOBODY)
        connection = start_server();
    if (connection < 0 || !send_call())
        return run_cold(argv);
    /* While the worker wakes up. */
    right = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
    if (right < 0 || !is_accepted())
        return run_cold(argv);
    signal(SIGTERM, pass_on);
    signal(SIGINT, pass_on);
    int status = send_descriptors() ? status_of_worker() : NOT_RUN;
    if (status != NOT_RUN)
        return status;
    if (is_stopped)
        return fail(11, "stopped by a signal", "nothing had been done");
    signal(SIGTERM, SIG_DFL);
    signal(SIGINT, SIG_DFL);
    return run_cold(argv);
}
