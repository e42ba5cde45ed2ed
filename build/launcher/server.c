/* Connect to a caller's server, and start the server. */
#define _GNU_SOURCE
#include "launcher.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BACKLOG 1024
#define LOCK_TRIES 200
#define LOCK_PAUSE_NS (20 * 1000 * 1000)
#define DEFAULT_STACK (8 << 20) /* the kernel's _STK_LIM */
#define IOPRIO_WHO_PROCESS 1 /* ioprio_set(2) */

static struct sockaddr_un address_of_socket(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    memcpy(address.sun_path, socket_path, strlen(socket_path) + 1);
    return address;
}

pid_t server_of(int fd)
{
    struct ucred peer;
    socklen_t size = sizeof peer;
    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0 ? 0 : peer.pid;
}

int connect_to_server(void)
{
    struct sockaddr_un address = address_of_socket();
    struct ucred peer;
    socklen_t size = sizeof peer;
    errno = 0;
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return UNUSABLE;
    if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0 &&
        getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && peer.uid == geteuid())
        return fd;
    int reason = errno;
    close(fd);
    return reason == ECONNREFUSED || reason == ENOENT ? NO_SERVER : UNUSABLE;
}

static int open_lock(void)
{
    char path[120];
    snprintf(path, sizeof path, "%s.lock", socket_path);
    int fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    for (int tries = 0; fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) < 0; tries++) {
        if (errno != EWOULDBLOCK || tries == LOCK_TRIES) {
            close(fd);
            return -1;
        }
        nanosleep(&(struct timespec){.tv_nsec = LOCK_PAUSE_NS}, NULL);
    }
    return fd;
}

int exec_server(void)
{
    char *argv[] = {"pycni", "--warm-server", socket_path, (char *)build_id(), NULL};
    return exec_bundle(argv);
}

/* Reset nice value, scheduling policy, affinity and I/O priority of the first caller, which must not apply to later
 * calls. Settings that the kernel refuses to change remain. */
static void reset_scheduling(void)
{
    cpu_set_t all;
    memset(&all, 0xff, sizeof all);
    sched_setaffinity(0, sizeof all, &all);
    /* musl's sched_setscheduler does nothing. */
    syscall(SYS_sched_setscheduler, 0, SCHED_OTHER, &(struct sched_param){0});
    setpriority(PRIO_PROCESS, 0, 0);
    syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, 0);
}

/* Raise soft limits of the first caller to the hard limits, so that they do not bind later calls. Core files and the
 * stack get the kernel's defaults: infinite values would write core files and change the memory layout. */
static void reset_limits(void)
{
    struct rlimit limit;
    for (int kind = 0; kind < RLIM_NLIMITS; kind++) {
        if (getrlimit(kind, &limit) < 0)
            continue;
        rlim_t soft = kind == RLIMIT_CORE ? 0 : kind == RLIMIT_STACK ? DEFAULT_STACK : limit.rlim_max;
        limit.rlim_cur = soft < limit.rlim_max ? soft : limit.rlim_max;
        setrlimit(kind, &limit);
    }
}

/* Detach from the caller, release everything inherited from it, and execute the server. */
static void become_server(int listener)
{
    char *env[] = {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", NULL};
    sigset_t none;
    int null = open("/dev/null", O_RDWR);
    int adjustment = open("/proc/self/oom_score_adj", O_WRONLY);
    /* Without /dev/null the caller's descriptors cannot be replaced. */
    if (null < 0 || setsid() < 0 || fork() != 0)
        _exit(0);
    if (write(adjustment, "0", 1) < 0)
        errno = 0; /* the caller's value remains */
    reset_scheduling();
    reset_limits();
    for (int fd = 0; fd < 3; fd++)
        dup2(null, fd);
    dup2(listener, LISTEN_FD);
    fcntl(LISTEN_FD, F_SETFD, 0);
    umask(022);
    for (int number = 1; number < 65; number++)
        signal(number, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    environ = env;
    /* On a kernel without close_range (before 5.9) no server starts, because it would keep the caller's files open. */
    if (syscall(SYS_close_range, LISTEN_FD + 1, ~0U, 0) == 0 && chdir("/") == 0)
        exec_server();
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
    int fd = bound == 0 && listen(listener, BACKLOG) == 0 ? connect_to_server() : UNUSABLE;
    pid_t child = fd < 0 ? -1 : fork();
    if (child == 0)
        become_server(listener);
    if (child > 0)
        waitpid(child, NULL, 0);
    close(listener);
    return fd;
}

int start_server(void)
{
    int lock = may_start_server() ? open_lock() : -1;
    if (lock < 0)
        return UNUSABLE;
    int fd = connect_to_server(); /* another launcher may have started it */
    if (fd == NO_SERVER)
        fd = bind_and_start();
    close(lock);
    return fd;
}
