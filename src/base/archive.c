/* The door to libarchive. */
#include <shoal/base/archive.h>
#include <shoal/base/library.h>

struct archive_calls libarchive;
static struct library library = LIBRARY(LIBARCHIVE_FILE, "libarchive13", "archive_", ARCHIVE_CALLS, libarchive);

int archive_load(struct err *e)
{
    return library_load(&library, e);
}
