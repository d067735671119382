/* Files that are only in memory, sealed once they are written: programs, filters, messages too large for a socket. */
#include "runtime_internal.h"
#include <errno.h>
#include <fcntl.h>
#include <shoal/base/file.h>
#include <sys/mman.h>
#include <unistd.h>

#define SEALS (F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)

int memory_file(const char *name, unsigned flags, const void *p, size_t size, struct err *e)
{
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | flags);
    if (fd < 0 && errno == EINVAL) /* before Linux 6.3 there is no MFD_EXEC, every one is executable */
        fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    int high = fd >= 0 ? fcntl(fd, F_DUPFD_CLOEXEC, LOW_FDS) : -1;
    int error = errno;
    if (fd >= 0)
        close(fd);
    if (high < 0)
        return err_errno(e, error, "memory for the %s", name);
    int r = fd_write_all(high, p, size, e);
    if (r == 0 && fcntl(high, F_ADD_SEALS, SEALS) < 0)
        r = err_errno(e, errno, "seal the memory of the %s", name);
    if (r < 0) {
        close(high);
        return r;
    }
    return high;
}
