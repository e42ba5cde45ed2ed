/* Compute which server serves a caller: the name of its socket, and whether a call may start the server.
 *
 * There is one server for each build, set of namespaces, root folder and set of rights (protocol.md, "The key"), so
 * that the worker has the same rights and sees the same files as the caller. The worker compares all of them again
 * (build/connection/peer.c), because the name separates honest callers only.
 */
#define _GNU_SOURCE
#include "launcher.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define EVERYWHERE_FILE "/etc/cni/pycni/warm-everywhere"
#define CALLS_FILE FOLDER "/elsewhere"
#define MAX_CALLERS 256 /* entries of CALLS_FILE */
#define SECOND_CALL_S 10
#define MAX_GROUPS 64
#define NS_GET_MNTNS_ID ((int)_IOR(0xb7, 5, uint64_t)) /* linux/nsfs.h since Linux 6.12 */
/* linux/stat.h: struct statx as 64-bit words, for C libraries without it */
#define STATX_WORDS 32
#define STATX_INO_AND_MNT_ID 0x1100U
enum { INODE_WORD = 4, DEVICE_WORD = 17, MOUNT_WORD = 18 };

char socket_path[108];
static uint64_t key;

static int is_private_folder(const char *path)
{
    struct stat status;
    if (lstat(path, &status) < 0 &&
        ((mkdir(path, 0700) < 0 && errno != EEXIST) || lstat(path, &status) < 0))
        return 0;
    return S_ISDIR(status.st_mode) && status.st_uid == geteuid() && (status.st_mode & 077) == 0;
}

/* Add a number to the key: FNV-1a of its lower-case hexadecimal digits and a space. */
static void add_to_key(uint64_t number)
{
    char text[20];
    snprintf(text, sizeof text, "%llx ", (unsigned long long)number);
    for (char *each = text; *each; each++)
        key = (key ^ (unsigned char)*each) * 0x100000001b3u;
}

/* Add the inode numbers, from links such as "net:[4026531833]": readlink(2) takes half as long as stat(2). */
static int add_namespaces(void)
{
    static const char *const links[] = {"/proc/self/ns/net", "/proc/self/ns/pid", "/proc/self/ns/user"};
    for (size_t i = 0; i < sizeof links / sizeof *links; i++) {
        char text[32] = {0};
        const char *number;
        if (readlink(links[i], text, sizeof text - 1) < 0 || !(number = strchr(text, '[')))
            return 0;
        add_to_key(strtoull(number + 1, NULL, 10));
    }
    return 1;
}

/* Add the mount namespace's unique ID if the kernel has it: the kernel reuses its inode numbers at once. */
static int add_mount_namespace(void)
{
    uint64_t id = 0;
    struct stat status = {0};
    int fd = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    int is_known = ioctl(fd, NS_GET_MNTNS_ID, &id) == 0 || fstat(fd, &status) == 0;
    add_to_key(id ? id : status.st_ino);
    close(fd);
    return is_known;
}

static int add_root(void)
{
    uint64_t words[STATX_WORDS] = {0};
    if (syscall(SYS_statx, AT_FDCWD, "/", 0, STATX_INO_AND_MNT_ID, words) < 0)
        return 0;
    add_to_key(words[DEVICE_WORD]);
    add_to_key(words[INODE_WORD]);
    add_to_key(words[MOUNT_WORD]);
    return 1;
}

static int add_credentials(void)
{
    /* linux/capability.h */
    struct { uint32_t version; int pid; } head = {0x20080522, 0};
    struct { uint32_t effective, permitted, inheritable; } sets[2] = {{0, 0, 0}, {0, 0, 0}};
    gid_t groups[MAX_GROUPS], group = getegid();
    int count = getgroups(MAX_GROUPS, groups);
    if (syscall(SYS_capget, &head, sets) < 0 || count < 0)
        return 0;
    add_to_key((uint64_t)sets[1].effective << 32 | sets[0].effective);
    add_to_key((uint64_t)sets[1].permitted << 32 | sets[0].permitted);
    add_to_key((uint64_t)sets[1].inheritable << 32 | sets[0].inheritable);
    add_to_key((uint64_t)prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
    add_to_key(group);
    for (int i = 0; i < count; i++)
        if (groups[i] != group)
            add_to_key(groups[i]);
    return 1;
}

int find_socket(void)
{
    key = 0xcbf29ce484222325u;
    /* The mode of seccomp does not identify the filter. */
    if (prctl(PR_GET_SECCOMP, 0, 0, 0, 0) > 0)
        return 0;
    if (!add_namespaces() || !add_mount_namespace() || !add_root() || !add_credentials())
        return 0;
    snprintf(socket_path, sizeof socket_path, FOLDER "/%s-%016llx.sock", build_id(), (unsigned long long)key);
    return is_private_folder("/run/pycni") && is_private_folder(FOLDER);
}

/* ---- may this call start a server? ---- */

static int is_namespace_of_init(const char *kind)
{
    char path[32];
    struct stat init, own;
    snprintf(path, sizeof path, "/proc/1/ns/%s", kind);
    if (stat(path, &init) < 0)
        return 0;
    snprintf(path, sizeof path, "/proc/self/ns/%s", kind);
    return stat(path, &own) == 0 && init.st_ino == own.st_ino && init.st_dev == own.st_dev;
}

/* Record the call. Returns whether a call with the same key was recorded up to SECOND_CALL_S before. Two keys may share
 * an entry: then each overwrites the other. */
static int is_second_call(void)
{
    struct { uint64_t key; int64_t second; } before = {0, 0}, now = {key, 0};
    struct timespec clock;
    off_t offset = (off_t)(key % MAX_CALLERS * sizeof now);
    int file = open(CALLS_FILE, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (file < 0 || clock_gettime(CLOCK_BOOTTIME, &clock) < 0)
        return 0;
    now.second = clock.tv_sec;
    int is_recorded = pread(file, &before, sizeof before, offset) == sizeof before && before.key == key &&
                   now.second - before.second <= SECOND_CALL_S;
    if (pwrite(file, &now, sizeof now, offset) < 0)
        is_recorded = 0; /* full disk: calls are cold */
    close(file);
    return is_recorded;
}

/* /proc may show another process ID namespace than this process's, if it was mounted before that was created. */
static int is_proc_ours(void)
{
    char text[16] = {0};
    return readlink("/proc/self", text, sizeof text - 1) > 0 && atoi(text) == getpid();
}

int may_start_server(void)
{
    if (!is_proc_ours())
        return 0;
    int is_on_host = is_namespace_of_init("net") && is_namespace_of_init("mnt");
    return is_on_host || access(EVERYWHERE_FILE, F_OK) == 0 || is_second_call();
}
