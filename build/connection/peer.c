/* Authenticate the process at the other end of a connection: its rights must equal this process's.
 *
 * The socket's name separates honest callers only: any process that can see the socket folder can connect. The worker
 * therefore compares the caller's process with itself: namespaces, root directory, users, groups, capabilities,
 * no_new_privs and seccomp. It reads them through a descriptor of /proc/PID, which always refers to the same process.
 * The kernel's pidfd of the process that connected (SO_PEERPIDFD) proves that /proc/PID is that process.
 */
#define _GNU_SOURCE
#include "peer.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77 /* since Linux 6.5 */
#endif
#define LENGTH_OF(array) (sizeof(array) / sizeof *(array))

/* Links below /proc/PID. Other kinds of namespaces add no protection: a process with all this in common shares the
 * worker's files. */
static const char *const namespaces[] = {"ns/net", "ns/mnt", "ns/pid", "ns/user"};
/* Lines of /proc/PID/status, in the kernel's order. */
static const char *const rights[] = {"\nUid:",    "\nGid:",    "\nGroups:", "\nCapInh:",     "\nCapPrm:",
                                     "\nCapEff:", "\nCapBnd:", "\nCapAmb:", "\nNoNewPrivs:", "\nSeccomp:"};
enum { GID = 1, GROUPS, SECCOMP = LENGTH_OF(rights) - 1 };

struct process {
    char namespaces[LENGTH_OF(namespaces)][32];
    struct statx root;
    char status[4096];
    const char *rights[LENGTH_OF(rights)]; /* pointers into `status`, to the values of the lines */
};

static struct process own, other;

/* Read the status file and find the lines in `rights`. Returns 0 if one is missing. */
static int read_rights(int folder, struct process *process)
{
    int file = openat(folder, "status", O_RDONLY | O_CLOEXEC);
    ssize_t length = file < 0 ? -1 : read(file, process->status, sizeof process->status - 1);
    close(file);
    if (length < 0)
        return 0;
    process->status[length] = 0;
    const char *at = process->status;
    for (size_t i = 0; i < LENGTH_OF(rights); i++) {
        const char *line = strstr(at, rights[i]);
        if (!line && i != SECCOMP)
            return 0;
        /* The kernel may be built without seccomp. */
        process->rights[i] = line ? line + strlen(rights[i]) : "\t0\n";
        at = process->rights[i];
    }
    return 1;
}

/* Read the properties of a process by a descriptor of its folder in /proc. Returns 0 if that fails. */
static int read_process(int folder, struct process *process)
{
    for (size_t i = 0; i < LENGTH_OF(namespaces); i++) {
        ssize_t length = readlinkat(folder, namespaces[i], process->namespaces[i], sizeof process->namespaces[i] - 1);
        if (length < 0)
            return 0;
        process->namespaces[i][length] = 0;
    }
    return statx(folder, "root", 0, STATX_INO | STATX_MNT_ID, &process->root) == 0 && read_rights(folder, process);
}

/* Any filter is refused: the mode of seccomp does not identify the filter. */
static int is_filtered(const struct process *process) { return strncmp(process->rights[SECCOMP], "\t0\n", 3) != 0; }

static int is_same_line(const char *one, const char *two)
{
    size_t length = strcspn(one, "\n");
    return strncmp(one, two, length + 1) == 0;
}

/* Return the next supplementary group that is not the effective group; -1 after the last. */
static long next_group(const char **line, const struct process *process)
{
    char *behind;
    long effective, group;
    strtol(process->rights[GID], &behind, 10);
    effective = strtol(behind, NULL, 10);
    do {
        *line += strspn(*line, " \t");
        if (**line == '\n' || **line == 0)
            return -1;
        group = strtol(*line, &behind, 10);
        *line = behind;
    } while (group == effective);
    return group;
}

/* A login adds the effective group to the supplementary groups, an init system does not. */
static int has_same_groups(void)
{
    const char *own_line = own.rights[GROUPS], *other_line = other.rights[GROUPS];
    long group;
    do {
        group = next_group(&own_line, &own);
        if (group != next_group(&other_line, &other))
            return 0;
    } while (group >= 0);
    return 1;
}

static const char *difference(void)
{
    for (size_t i = 0; i < LENGTH_OF(namespaces); i++)
        if (strcmp(other.namespaces[i], own.namespaces[i]) != 0)
            return namespaces[i];
    if (other.root.stx_ino != own.root.stx_ino || other.root.stx_dev_major != own.root.stx_dev_major ||
        other.root.stx_dev_minor != own.root.stx_dev_minor || other.root.stx_mnt_id != own.root.stx_mnt_id)
        return "root";
    if (is_filtered(&other))
        return rights[SECCOMP] + 1;
    for (size_t i = 0; i < LENGTH_OF(rights); i++)
        if (i == GROUPS ? !has_same_groups() : !is_same_line(own.rights[i], other.rights[i]))
            return rights[i] + 1;
    return NULL;
}

int peer_setup(void)
{
    int folder = open("/proc/self", O_PATH | O_DIRECTORY | O_CLOEXEC);
    int is_read = folder >= 0 && read_process(folder, &own) && !is_filtered(&own);
    close(folder);
    return is_read ? 0 : -1;
}

/* Return the kernel's descriptor of the process that connected; -1 with ENOPROTOOPT before Linux 6.5. */
static int pidfd_of(int connection)
{
    int fd = -1;
    socklen_t size = sizeof fd;
    return getsockopt(connection, SOL_SOCKET, SO_PEERPIDFD, &fd, &size) < 0 ? -1 : fd;
}

static int has_ended(int pidfd)
{
    struct pollfd polled = {pidfd, POLLIN, 0};
    return poll(&polled, 1, 0) != 0;
}

const char *peer_difference(int connection, pid_t pid)
{
    char path[32];
    int pidfd = pidfd_of(connection);
    if (pidfd < 0 && errno != ENOPROTOOPT)
        return "process";
    snprintf(path, sizeof path, "/proc/%d", pid);
    int folder = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    int is_read = folder >= 0 && read_process(folder, &other);
    /* If it still lives, its process ID was not reused before the folder was opened. */
    int is_pinned = pidfd < 0 || !has_ended(pidfd);
    close(folder);
    if (pidfd >= 0)
        close(pidfd);
    return is_read && is_pinned ? difference() : "process";
}
