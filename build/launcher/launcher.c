/* The launcher, installed under each plugin's name: passes the call to an idle worker, or executes the bundle.
 *
 * The launcher sends the plugin's name, environment, working directory, umask and descriptors 0, 1, 2 to a worker of
 * the warm server for this build and these namespaces. The worker runs the plugin, and the launcher exits with the
 * worker's exit status. If no server may run or none can be started, the launcher executes the bundle. A call never
 * runs twice: after the launcher has sent the descriptors (GO) it does not execute the bundle. protocol.md in this
 * folder describes the messages and the key. The launcher reports each failure of its own as one CNI error object.
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
#define MIN_DESCRIPTORS 256
#define MAX_SECONDS (24 * 60 * 60)
#define FIRST_CHECK_MS 100
#define CHECK_MS 900
#define NOT_RUN -1 /* in place of an exit status */

/* `make install` writes strings behind these markers, so that the launcher reads no file to find them: the bundle's
 * absolute path, and its path relative to the launcher's folder if it is below that. The launcher tries the relative
 * path first, so that a copy or another mount of the folder works. */
static volatile char tree[272] = "@PYCNI-TREE@:";
static volatile char below[272] = "@PYCNI-BELOW@:";
static volatile char build[48] = "@PYCNI-BUILD@:";

struct request {
    char bytes[MAX_REQUEST];
    size_t length;
};

static const char *name;      /* of the plugin: the base name of argv[0] */
static char executable[4096]; /* the launcher's file */
static int connection = -1;
static int response_token = -1; /* an eventfd with value 1: the process that reads it may print the response */
static volatile sig_atomic_t is_interrupted;

static const char *installed(volatile char *marked) { return strchr((char *)marked, ':') + 1; }

const char *build_id(void) { return installed(build); }

/* Copy text into a JSON string; replace characters that need an escape by "?". */
static void escape_for_json(char *safe, size_t size, const char *text)
{
    snprintf(safe, size, "%s", text);
    for (char *each = safe; *each; each++)
        if (*each < ' ' || *each == '"' || *each == '\\' || *each > '~')
            *each = '?';
}

static int fail(int code, const char *message, const char *details)
{
    char safe[32];
    escape_for_json(safe, sizeof safe, name);
    printf("{\"cniVersion\":\"1.1.0\",\"code\":%d,\"msg\":\"plugin %s: %s\",\"details\":\"%s\"}\n", code, safe, message,
           details);
    fflush(stdout);
    return 1;
}

static int fail_without_bundle(const char *bundle, int reason)
{
    char safe[4400], what[4600];
    escape_for_json(safe, sizeof safe, bundle);
    snprintf(what, sizeof what, "cannot execute %s: %s", safe, strerror(reason));
    if (reason == EACCES || reason == EPERM)
        return fail(5, what, "Make it executable: mount its file system without noexec, and check its permissions.");
    return fail(5, what, "Run \\\"make install\\\" again, or copy the bundle's folder together with the executables.");
}

int exec_bundle(char **argv)
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

static int exec_cold(char **argv)
{
    setenv("PYCNI_NAME", name, 1);
    setenv("PYCNI_EXECUTABLE", executable, 1);
    return exec_bundle(argv);
}

/* ---- may a worker serve this call? ---- */

static int is_off(void)
{
    const char *warm = getenv("PYCNI_WARM");
    return (warm && (strcmp(warm, "off") == 0 || strcmp(warm, "0") == 0)) || access(OFF_FILE, F_OK) == 0;
}

/* Return whether the caller has limits, which would not bind the worker. */
static int is_limited(void)
{
    static const int kinds[] = {RLIMIT_AS, RLIMIT_CPU, RLIMIT_DATA, RLIMIT_FSIZE};
    struct rlimit limit;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (getrlimit(kinds[i], &limit) < 0 || limit.rlim_cur != RLIM_INFINITY)
            return 1;
    return getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur < MIN_DESCRIPTORS;
}

/* Open /dev/null for descriptors that the caller has closed, or a file of the launcher would get that number. */
static int ensure_standard_descriptors(void)
{
    for (int fd = 0; fd < 3; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) != fd)
            return 0;
    return 1;
}

/* If stdin is a directory, the interpreter ends with a fatal error and no error object. */
static int is_directory(int fd)
{
    struct stat status;
    return fstat(fd, &status) == 0 && S_ISDIR(status.st_mode);
}

/* Use an empty stdin for verbs that read no configuration. Returns 0 for other verbs. */
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

static int send_request(void)
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

/* Send GO with the descriptors. The request has none: in a message that no worker reads, they would keep the caller's
 * pipes open. */
static int send_descriptors(void)
{
    int folder = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    int fds[] = {0, 1, 2, folder, response_token};
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

/* Forward the runtime's signal, so that the worker undoes an ADD, and shut down the sending side. */
static void forward_signal(int number)
{
    int saved = errno;
    char stop[] = {STOP, (char)number};
    is_interrupted = 1;
    send(connection, stop, sizeof stop, MSG_NOSIGNAL | MSG_DONTWAIT);
    shutdown(connection, SHUT_WR);
    errno = saved;
}

/* Receive the next message. Returns its size, 0 at the end of the connection, -1 after the timeout. */
static int receive_message(unsigned char *message, size_t size, int timeout_ms)
{
    struct timespec start, now;
    clock_gettime(CLOCK_MONOTONIC, &start);
    for (;;) {
        clock_gettime(CLOCK_MONOTONIC, &now);
        long waited_ms = (now.tv_sec - start.tv_sec) * 1000 + (now.tv_nsec - start.tv_nsec) / 1000000;
        int remaining_ms = timeout_ms - (int)waited_ms;
        struct pollfd wait = {connection, POLLIN, 0};
        int ready = remaining_ms <= 0 ? 0 : poll(&wait, 1, remaining_ms);
        if (ready == 0)
            return -1;
        if (ready < 0)
            continue; /* EINTR: a signal was forwarded */
        ssize_t received = recv(connection, message, size, MSG_DONTWAIT);
        /* A worker that closes with unread data resets the connection; its own messages can still be received. */
        if (received < 0 && errno == ECONNRESET)
            received = recv(connection, message, size, MSG_DONTWAIT);
        return received < 0 ? 0 : (int)received;
    }
}

static int seconds(const char *variable, int otherwise)
{
    const char *text = getenv(variable);
    long value = text ? strtol(text, NULL, 10) : 0;
    if (value <= 0)
        return otherwise;
    return value < MAX_SECONDS ? (int)value : MAX_SECONDS; /* poll(2) counts milliseconds in an int */
}

/* Wait until a worker accepts the call. Returns 0 after 1 s if the server uses no CPU time, else after the limit. */
static int wait_for_accept(void)
{
    unsigned char message[2];
    int limit_ms = seconds("PYCNI_WARM_ACCEPT_S", 10) * 1000, pid = server_of(connection);
    int received = receive_message(message, sizeof message, FIRST_CHECK_MS);
    uint64_t cpu_time = 0;
    for (int waited = FIRST_CHECK_MS; received < 0 && waited < limit_ms; waited += CHECK_MS) {
        uint64_t before = cpu_time_of_server(pid);
        received = receive_message(message, sizeof message, CHECK_MS);
        cpu_time = cpu_time_of_server(pid);
        if (before && cpu_time == before)
            break;
        cpu_time = 0;
    }
    if (received < 0)
        mark_unresponsive(pid, cpu_time);
    return received == 1 && message[0] == ACCEPTED;
}

/* Print an error object, but not if the worker may have printed: stdout would have a second document. */
static int fail_without_status(const char *message)
{
    eventfd_t value;
    if (eventfd_read(response_token, &value) == 0)
        return fail(11, message, "Call DEL to remove partial state.");
    signal(SIGPIPE, SIG_IGN);
    dprintf(STDERR_FILENO, "pycni: plugin %s: %s, after it had begun to respond; DEL removes partial state\n", name,
            message);
    return 1;
}

/* Return the plugin's exit status, or NOT_RUN if the worker refuses the call. */
static int wait_for_status(void)
{
    unsigned char message[2];
    int received = receive_message(message, sizeof message, seconds("PYCNI_WARM_ANSWER_S", 600) * 1000);
    if (received == 2 && message[0] == STATUS)
        return message[1];
    if (received == 1 && message[0] == REFUSED)
        return NOT_RUN;
    return fail_without_status(received < 0 ? "the worker did not respond in time and was killed"
                                            : "the worker was killed during the call");
}

/* Options for systemd units: print the socket's path, or become the server on a socket that systemd has bound. */
static int run_option(const char *option)
{
    if (!find_socket())
        return fail(5, "no warm server may run: " FOLDER " is not a private folder, or seccomp filters this process",
                    "Make " FOLDER " a directory with mode 0700 that belongs to the calling user.");
    return strcmp(option, "--warm-server") == 0 ? exec_server() : puts(socket_path) < 0;
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
    if (!ensure_standard_descriptors() || is_off() || is_limited() || !find_socket() || is_marked_unresponsive())
        return exec_cold(argv);
    connection = connect_to_server();
    if (connection == NO_SERVER)
        connection = start_server();
    if (connection < 0 || !send_request())
        return exec_cold(argv);
    /* Created only now, while the worker wakes up. */
    response_token = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
    if (response_token < 0 || !wait_for_accept())
        return exec_cold(argv);
    signal(SIGTERM, forward_signal);
    signal(SIGINT, forward_signal);
    int status = send_descriptors() ? wait_for_status() : NOT_RUN;
    if (status != NOT_RUN)
        return status;
    if (is_interrupted)
        return fail(11, "interrupted by a signal before the plugin started", "Call the command again.");
    signal(SIGTERM, SIG_DFL);
    signal(SIGINT, SIG_DFL);
    return exec_cold(argv);
}
