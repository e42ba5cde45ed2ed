/* The program `pycni` of a bundle: starts the interpreter beside it, which imports from nowhere else.
 *
 *     pycni              this program
 *     bin/python3        the interpreter, as the distribution has linked it
 *     lib/               shared libraries that another machine may not have
 *     lib/python3.N/     all modules, compiled; the interpreter finds them relative to itself
 *     lib/pycni.pyc      the main module
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LIBRARIES "LD_LIBRARY_PATH"
#define MOST_ARGUMENTS 1024

static char tree[PATH_MAX];

static char *within(const char *path)
{
    size_t size = strlen(tree) + strlen(path) + 1;
    char *whole = malloc(size);
    if (whole)
        snprintf(whole, size, "%s%s", tree, path);
    return whole;
}

/* The interpreter ends with a fatal error if stdin is a directory. */
static void replace_directory_as_stdin(void)
{
    struct stat found;
    int null = fstat(0, &found) == 0 && S_ISDIR(found.st_mode) ? open("/dev/null", O_RDWR | O_CLOEXEC) : -1;
    if (null >= 0)
        dup2(null, 0);
}

/* A plugin's error is a CNI error object on stdout; the launcher has set the variable for a plugin. */
static int fail(const char *path)
{
    const char *reason = strerror(errno);
    if (getenv("PYCNI_NAME"))
        printf("{\"cniVersion\":\"1.1.0\",\"code\":5,\"msg\":\"the bundle is incomplete: %s: %s\","
               "\"details\":\"Run \\\"make install\\\" again, or copy the whole folder of the bundle.\"}\n",
               path, reason);
    else
        fprintf(stderr, "pycni: the bundle is incomplete: %s: %s\n", path, reason);
    return 1;
}

int main(int argc, char **argv)
{
    char *command[MOST_ARGUMENTS + 4] = {0};
    const char *before = getenv(LIBRARIES);
    ssize_t length = readlink("/proc/self/exe", tree, sizeof tree - 1);
    if (length <= 0 || argc > MOST_ARGUMENTS) {
        fprintf(stderr, "pycni: too many arguments, or no /proc\n");
        return 1;
    }
    *strrchr(tree, '/') = '\0';
    replace_directory_as_stdin();
    /* pycni.pyc undoes both changes before it starts another program. */
    if (before)
        setenv("PYCNI_" LIBRARIES, before, 1);
    setenv(LIBRARIES, within("/lib"), 1);
    command[0] = within("/bin/python3");
    command[1] = "-ISB"; /* ignore variables, folder and packages of the machine; write no .pyc files */
    command[2] = within("/lib/pycni.pyc");
    for (int at = 1; at < argc; at++)
        command[at + 2] = argv[at];
    if (access(command[2], R_OK) == 0)
        execv(command[0], command);
    return fail(access(command[2], R_OK) == 0 ? command[0] : command[2]);
}
