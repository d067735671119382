/* Program `shoal-shim`, embedded in shoal (shim_image.S) and run from a sealed memfd: static, so that a container
 * costs little memory, and nothing that a container can reach by /proc/self/exe is a file of the host.
 * Arguments: DIR CGROUP PROBLEM (why the container cannot be made, or ""). Descriptors: 3 the listening socket,
 * 4 a memfd with the packed specification, 5 the compiled system call filter or nothing. Or: oci BASE (oci_init_io.c). */
#include "oci_internal.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

/* The bytes of a memfd, mapped: a filter is shared by all shims, a specification with secrets is not copied. */
static int map_memfd(int fd, size_t max, const void **ret, size_t *ret_size, struct err *e)
{
    struct stat st;
    if (fstat(fd, &st) < 0 || st.st_size <= 0 || (size_t)st.st_size > max)
        return err_set(e, E_INVALID, "container specification or filter of a wrong size");
    void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (p == MAP_FAILED)
        return err_errno(e, errno, "read the container specification");
    *ret = p;
    *ret_size = (size_t)st.st_size;
    return 0;
}

static int read_spec(struct container_spec *ret, struct err *e)
{
    const void *p = NULL;
    size_t size = 0;
    int r = map_memfd(SHIM_SPEC_FD, SHIM_SPEC_MAX_BYTES, &p, &size, e);
    close(SHIM_SPEC_FD);
    if (r < 0)
        return r;
    r = rec_unpack(&container_spec_rec, ret, p, size, e);
    munmap((void *)(uintptr_t)p, size);
    return r;
}

static int read_filter(struct seccomp_program *ret, struct err *e)
{
    const void *p = NULL;
    size_t size = 0;
    if (fcntl(SHIM_FILTER_FD, F_GETFD) < 0)
        return 0;
    int r = map_memfd(SHIM_FILTER_FD, UINT16_MAX * sizeof(struct sock_filter), &p, &size, e);
    close(SHIM_FILTER_FD);
    *ret = (struct seccomp_program){ p, (uint16_t)(size / sizeof(struct sock_filter)) };
    return r;
}

int main(int argc, char **argv)
{
    struct container_spec spec = { 0 };
    struct seccomp_program filter = { 0 };
    struct err e = { 0 };
    if (argc == 3 && str_equal(argv[1], "oci"))
        oci_init_main((int)strtol(argv[2], NULL, 10));
    if (argc != 4)
        return 2;
    prctl(PR_SET_NAME, "shoal-shim", 0, 0, 0);
    signal(SIGCHLD, SIG_DFL);
    fcntl(SHIM_LISTEN_FD, F_SETFD, FD_CLOEXEC);
    int r = read_spec(&spec, &e);
    if (r == 0 && argv[3][0])
        r = err_set(&e, E_INVALID, "%s", argv[3]);
    if (r == 0)
        r = read_filter(&filter, &e);
    struct shim_args args = {
        .dir = argv[1], .cgroup_parent = argv[2], .spec = &spec, .listen_fd = SHIM_LISTEN_FD,
        .seccomp = filter.n ? &filter : NULL, .failed = r < 0 ? &e : NULL,
    };
    _exit(shim_run(&args));
}
