/* Detect a server that does not run, so that calls do not wait for it.
 *
 * The server and its workers are in the control group of the first caller, or of their systemd unit. While that group
 * is frozen none of them runs, and their CPU time stays the same.
 */
#define _GNU_SOURCE
#include "launcher.h"

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define UNRESPONSIVE_S 10

/* A server that did not accept a call in time, and its CPU time then; 0 if that is unknown. */
struct mark {
    uint64_t pid, cpu_time;
};

static const char *mark_path(void)
{
    static char path[120];
    snprintf(path, sizeof path, "%s.stalled", socket_path);
    return path;
}

/* Return the text of a small file of a process; empty if the file cannot be read. */
static const char *read_process(int pid, const char *name)
{
    static char text[4096];
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/%s", pid, name);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length = file < 0 ? 0 : read(file, text, sizeof text - 1);
    text[length < 0 ? 0 : length] = 0;
    close(file);
    return text;
}

/* proc(5), schedstat: the first number is the CPU time in ns. */
static uint64_t cpu_time_of(int pid) { return strtoull(read_process(pid, "schedstat"), NULL, 10); }

uint64_t cpu_time_of_server(int pid)
{
    char children[4096], path[64], *rest = children;
    /* A process without the server's name may be the launcher that has bound the socket. */
    if (strcmp(read_process(pid, "comm"), SERVER_NAME "\n") != 0)
        return 0;
    uint64_t sum = cpu_time_of(pid);
    snprintf(path, sizeof path, "task/%d/children", pid);
    strcpy(children, read_process(pid, path));
    for (int child; (child = (int)strtol(rest, &rest, 10)) > 0;)
        sum += cpu_time_of(child);
    return sum;
}

void mark_unresponsive(int pid, uint64_t cpu_time)
{
    struct mark mark = {(uint64_t)pid, cpu_time};
    int file = open(mark_path(), O_WRONLY | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
    if (file >= 0 && write(file, &mark, sizeof mark) != sizeof mark)
        unlink(mark_path());
    close(file);
}

int is_marked_unresponsive(void)
{
    struct mark mark = {0, 0};
    struct stat status;
    int file = open(mark_path(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (file < 0)
        return 0;
    int is_read = read(file, &mark, sizeof mark) == sizeof mark && fstat(file, &status) == 0;
    close(file);
    if (is_read && mark.cpu_time && cpu_time_of_server((int)mark.pid) == mark.cpu_time)
        return 1;
    time_t age = is_read ? time(NULL) - status.st_mtime : -1;
    if (is_read && !mark.cpu_time && age >= 0 && age < UNRESPONSIVE_S)
        return 1;
    unlink(mark_path());
    return 0;
}
