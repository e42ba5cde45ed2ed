/* One program under each plugin's name: hands the call to a waiting worker, or runs the bundle.
 *
 * A call is name, environment, working directory, umask and descriptors 0, 1, 2. They go in one message to
 * a worker of the warm server that belongs to this build and to these namespaces; the worker is the
 * plugin from then on, and its exit status is ours. Where no server may or can live, the bundle is executed in
 * place. A call is never run twice: after the worker has taken it (ACCEPTED) there is no way back to the
 * bundle. protocol.md in this folder has the messages; every failure of our own is one CNI error object.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PROTOCOL_VERSION 1
#define MAGIC "PYCNI-WARM"
#define ACCEPTED 'A'
#define STATUS 'S'
#define REFUSED 'R'
#define MAX_REQUEST (160 * 1024)
#define FOLDER "/run/pycni/warm"
#define OFF_FILE "/etc/cni/pycni/warm-off"
#define LISTEN_FD 3

/* `make install` writes the two texts behind the marks, so that nothing must be read to find them. */
static volatile char tree[272] = "@PYCNI-TREE@:";
static volatile char build[48] = "@PYCNI-BUILD@:";

extern char **environ;

struct request {
    char bytes[MAX_REQUEST];
    size_t length;
};

static const char *name;              /* the plugin: what we were called as */
static char executable[4096];         /* our own file */
static char socket_path[108];
static int connection = -1;

static const char *installed(volatile char *text) { return strchr((char *)text, ':') + 1; }

static int fail(int code, const char *what, const char *details)
{
    char safe[32];
    snprintf(safe, sizeof safe, "%s", name);
    for (char *each = safe; *each; each++)
        if (*each < ' ' || *each == '"' || *each == '\\' || *each > '~')
            *each = '?';
    printf("{\n    \"code\": %d,\n    \"msg\": \"plugin %s: %s\",\n    \"details\": \"%s\"\n}", code, safe, what, details);
    fflush(stdout);
    return 1;
}

static int run_cold(char **argv)
{
    char bundle[300];
    snprintf(bundle, sizeof bundle, "%s/pycni", installed(tree));
    setenv("PYCNI_NAME", name, 1);
    setenv("PYCNI_EXECUTABLE", executable, 1);
    execv(bundle, argv);
    return fail(5, "could not execute the bundle", strerror(errno));
}

/* ---- which server: one for each build and each set of namespaces and root folder ---- */

static int is_private_folder(const char *path)
{
    struct stat found;
    if (mkdir(path, 0700) < 0 && errno != EEXIST)
        return 0;
    return lstat(path, &found) == 0 && S_ISDIR(found.st_mode) && found.st_uid == geteuid() &&
           (found.st_mode & 077) == 0;
}

static int find_place(void)
{
    static const char *kinds[] = {"net", "mnt", "user", "pid"};
    struct stat found;
    int length = snprintf(socket_path, sizeof socket_path, FOLDER "/%s", installed(build));
    for (int i = 0; i < 4; i++) {
        char path[32];
        snprintf(path, sizeof path, "/proc/self/ns/%s", kinds[i]);
        if (stat(path, &found) < 0)
            return 0;
        length += snprintf(socket_path + length, sizeof socket_path - (size_t)length, "-%lx", (unsigned long)found.st_ino);
    }
    if (stat("/", &found) < 0)
        return 0;
    length += snprintf(socket_path + length, sizeof socket_path - (size_t)length, "-%lx.%lx.sock",
                       (unsigned long)found.st_dev, (unsigned long)found.st_ino);
    return (size_t)length < sizeof socket_path && is_private_folder("/run/pycni") && is_private_folder(FOLDER);
}

static struct sockaddr_un address_of_socket(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    memcpy(address.sun_path, socket_path, strlen(socket_path) + 1);
    return address;
}

static int connect_to_server(void)
{
    struct sockaddr_un address = address_of_socket();
    struct ucred peer;
    socklen_t size = sizeof peer;
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -1;
    if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0 ||
        getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0 || peer.uid != geteuid()) {
        close(fd);
        return -1;
    }
    return fd;
}

/* ---- starting it ---- */

static int locked_file(void)
{
    char path[120];
    snprintf(path, sizeof path, "%s.lock", socket_path);
    int fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    for (int tries = 0; fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) < 0; tries++) {
        if (errno != EWOULDBLOCK || tries == 200) {
            close(fd);
            return -1;
        }
        nanosleep(&(struct timespec){.tv_nsec = 20 * 1000 * 1000}, NULL);
    }
    return fd;
}

static void be_server(int listener)
{
    char server[300];
    char *argv[] = {"pycni", "--warm-server", socket_path, (char *)installed(build), NULL};
    char *env[] = {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", NULL};
    int null = open("/dev/null", O_RDWR);
    setsid();
    if (fork() != 0 || null < 0)
        _exit(0);
    dup2(listener, LISTEN_FD);
    for (int fd = 0; fd < 3; fd++)
        dup2(null, fd);
    syscall(SYS_close_range, LISTEN_FD + 1, ~0U, 0);
    umask(022);
    for (int number = 1; number < 32; number++)
        signal(number, SIG_DFL);
    snprintf(server, sizeof server, "%s/pycni", installed(tree));
    if (chdir("/") == 0)
        execve(server, argv, env);
    _exit(1);
}

static int bind_and_start(void)
{
    struct sockaddr_un address = address_of_socket();
    int listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    unlink(socket_path);
    mode_t before = umask(0177);
    int bound = bind(listener, (struct sockaddr *)&address, sizeof address);
    umask(before);
    if (bound < 0 || listen(listener, 1024) < 0) {
        close(listener);
        return -1;
    }
    int fd = connect_to_server();
    pid_t child = fork();
    if (child == 0)
        be_server(listener);
    if (child > 0)
        waitpid(child, NULL, 0);
    close(listener);
    return fd;
}

static int start_server(void)
{
    int lock = locked_file();
    if (lock < 0)
        return -1;
    int fd = connect_to_server(); /* somebody else was first */
    if (fd < 0)
        fd = bind_and_start();
    close(lock);
    return fd;
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
    if (!append(&request, head) || !append(&request, installed(build)) || !append(&request, name) ||
        !append(&request, executable))
        return 0;
    for (char **each = environ; *each; each++)
        if (!append(&request, *each))
            return 0;
    int folder = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    int fds[] = {0, 1, 2, folder};
    char control[CMSG_SPACE(sizeof fds)] = {0};
    struct iovec text = {request.bytes, request.length};
    struct msghdr message = {.msg_iov = &text, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(sizeof fds);
    memcpy(CMSG_DATA(rights), fds, sizeof fds);
    ssize_t sent = folder < 0 ? -1 : sendmsg(connection, &message, MSG_NOSIGNAL);
    close(folder);
    return sent == (ssize_t)request.length;
}

/* A runtime that wants us to stop gets an undone ADD: the worker sees that we will say no more. */
static void pass_on(int number)
{
    (void)number;
    int saved = errno;
    shutdown(connection, SHUT_WR);
    errno = saved;
}

/* Give the next message, 0 for the end, -1 for none in time. */
static int next_message(unsigned char *message, size_t size, int timeout_s)
{
    struct timespec start, now;
    clock_gettime(CLOCK_MONOTONIC, &start);
    for (;;) {
        clock_gettime(CLOCK_MONOTONIC, &now);
        int left = timeout_s - (int)(now.tv_sec - start.tv_sec);
        struct pollfd wait = {connection, POLLIN, 0};
        int ready = left <= 0 ? 0 : poll(&wait, 1, left * 1000);
        if (ready == 0)
            return -1;
        if (ready < 0)
            continue; /* EINTR: a signal was passed on */
        ssize_t got = recv(connection, message, size, MSG_DONTWAIT);
        return got < 0 ? 0 : (int)got;
    }
}

static int seconds(const char *variable, int otherwise)
{
    const char *text = getenv(variable);
    int value = text ? atoi(text) : 0;
    return value > 0 ? value : otherwise;
}

/* Wait until a worker has taken the call; 0: it can never be taken any more. */
static int is_accepted(void)
{
    unsigned char message[2];
    int got = next_message(message, sizeof message, seconds("PYCNI_WARM_ACCEPT_S", 10));
    if (got < 0) {
        shutdown(connection, SHUT_RD); /* from here on the worker cannot accept: its send fails */
        got = (int)recv(connection, message, sizeof message, MSG_DONTWAIT);
    }
    return got > 0 && message[0] == ACCEPTED;
}

static int status_of_worker(void)
{
    unsigned char message[2];
    int limit = seconds("PYCNI_WARM_ANSWER_S", 600);
    int got = next_message(message, sizeof message, limit);
    if (got == 2 && message[0] == STATUS)
        return message[1];
    if (got < 0)
        return fail(11, "its worker did not answer in time and was ended", "DEL removes what it may have made");
    return fail(11, "its worker was killed in the middle of the call", "DEL removes what it may have made");
}

static int is_off(void)
{
    const char *warm = getenv("PYCNI_WARM");
    return (warm && (strcmp(warm, "off") == 0 || strcmp(warm, "0") == 0)) || access(OFF_FILE, F_OK) == 0;
}

int main(int argc, char **argv)
{
    const char *slash = argc > 0 ? strrchr(argv[0], '/') : NULL;
    name = argc > 0 ? (slash ? slash + 1 : argv[0]) : "";
    ssize_t length = readlink("/proc/self/exe", executable, sizeof executable - 1);
    if (length <= 0)
        snprintf(executable, sizeof executable, "%s", argc > 0 ? argv[0] : "");
    if (is_off() || !find_place())
        return run_cold(argv);
    connection = connect_to_server();
    if (connection < 0)
        connection = start_server();
    if (connection < 0 || !send_call())
        return run_cold(argv);
    signal(SIGTERM, pass_on);
    signal(SIGINT, pass_on);
    if (is_accepted())
        return status_of_worker();
    signal(SIGTERM, SIG_DFL);
    signal(SIGINT, SIG_DFL);
    close(connection);
    return run_cold(argv);
}
