/* Whether the process at the other end of a connection may do no less than this one.
 *
 * The name of the socket keeps honest callers apart, but anybody who sees the folder of sockets can connect. So the
 * worker compares the caller's process with itself: namespaces, root directory, users, groups, capabilities,
 * no_new_privs and seccomp. It reads them by a descriptor of /proc/PID, which is of one process for ever,
 * and the descriptor that the kernel keeps of the process that connected shows that it is that process.
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

/* Links below /proc/PID. The other kinds keep nobody out who has all this in common: he shares the files. */
static const char *const namespaces[] = {"ns/net", "ns/mnt", "ns/pid", "ns/user"};
/* Lines of /proc/PID/status, in the order of the kernel. */
static const char *const rights[] = {"\nUid:",    "\nGid:",    "\nGroups:", "\nCapInh:",     "\nCapPrm:",
                                     "\nCapEff:", "\nCapBnd:", "\nCapAmb:", "\nNoNewPrivs:", "\nSeccomp:"};
enum { GID = 1, GROUPS, SECCOMP = LENGTH_OF(rights) - 1 };

struct process {
    char namespaces[LENGTH_OF(namespaces)][32];
    struct statx root;
    char status[4096];
    const char *rights[LENGTH_OF(rights)]; /* where the texts behind the names begin */
};

static struct process ours, theirs;

/* Read the status file and find the lines that are about rights. Returns 0 where one is missing. */
static int read_rights(int folder, struct process *of)
{
    int file = openat(folder, "status", O_RDONLY | O_CLOEXEC);
    ssize_t got = file < 0 ? -1 : read(file, of->status, sizeof of->status - 1);
    close(file);
    if (got < 0)
        return 0;
    of->status[got] = 0;
    const char *at = of->status;
    for (size_t i = 0; i < LENGTH_OF(rights); i++) {
        const char *line = strstr(at, rights[i]);
        if (!line && i != SECCOMP)
            return 0;
        /* A kernel may be without seccomp. */
        of->rights[i] = line ? line + strlen(rights[i]) : "\t0\n";
        at = of->rights[i];
    }
    return 1;
}

/* Read what a process is, by a descriptor of its folder in /proc. Returns 0 where that cannot be. */
static int read_process(int folder, struct process *of)
{
    for (size_t i = 0; i < LENGTH_OF(namespaces); i++) {
        ssize_t got = readlinkat(folder, namespaces[i], of->namespaces[i], sizeof of->namespaces[i] - 1);
        if (got < 0)
            return 0;
        of->namespaces[i][got] = 0;
    }
    return statx(folder, "root", 0, STATX_INO | STATX_MNT_ID, &of->root) == 0 && read_rights(folder, of);
}

/* A mode of seccomp does not say which filter it is. */
static int is_filtered(const struct process *of) { return strncmp(of->rights[SECCOMP], "\t0\n", 3) != 0; }

static int is_same_line(const char *one, const char *other)
{
    size_t length = strcspn(one, "\n");
    return strncmp(one, other, length + 1) == 0;
}

/* Return the next supplementary group but the effective one; -1 behind the last. */
static long next_group(const char **line, const struct process *of)
{
    char *behind;
    long effective, group;
    strtol(of->rights[GID], &behind, 10);
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

/* A login adds the group itself to the supplementary ones, an init system does not. */
static int has_same_groups(void)
{
    const char *of_ours = ours.rights[GROUPS], *of_theirs = theirs.rights[GROUPS];
    long group;
    do {
        group = next_group(&of_ours, &ours);
        if (group != next_group(&of_theirs, &theirs))
            return 0;
    } while (group >= 0);
    return 1;
}

static const char *difference(void)
{
    for (size_t i = 0; i < LENGTH_OF(namespaces); i++)
        if (strcmp(theirs.namespaces[i], ours.namespaces[i]) != 0)
            return namespaces[i];
    if (theirs.root.stx_ino != ours.root.stx_ino || theirs.root.stx_dev_major != ours.root.stx_dev_major ||
        theirs.root.stx_dev_minor != ours.root.stx_dev_minor || theirs.root.stx_mnt_id != ours.root.stx_mnt_id)
        return "root";
    if (is_filtered(&theirs))
        return rights[SECCOMP] + 1;
    for (size_t i = 0; i < LENGTH_OF(rights); i++)
        if (i == GROUPS ? !has_same_groups() : !is_same_line(ours.rights[i], theirs.rights[i]))
            return rights[i] + 1;
    return NULL;
}

int peer_begin(void)
{
    int folder = open("/proc/self", O_PATH | O_DIRECTORY | O_CLOEXEC);
    int is_read = folder >= 0 && read_process(folder, &ours) && !is_filtered(&ours);
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
    struct pollfd seen = {pidfd, POLLIN, 0};
    return poll(&seen, 1, 0) != 0;
}

const char *peer_difference(int connection, pid_t pid)
{
    char path[32];
    int pidfd = pidfd_of(connection);
    if (pidfd < 0 && errno != ENOPROTOOPT)
        return "process";
    snprintf(path, sizeof path, "/proc/%d", pid);
    int folder = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    int is_read = folder >= 0 && read_process(folder, &theirs);
    /* Its number was not given to another before the folder was opened, as it still lives. */
    int is_pinned = pidfd < 0 || !has_ended(pidfd);
    close(folder);
    if (pidfd >= 0)
        close(pidfd);
    return is_read && is_pinned ? difference() : "process";
}
