/* The door to libarchive. */
#include <shoal/base/archive.h>
#include <shoal/base/library.h>

struct archive_calls libarchive;
static const char *const names[] = {
#define F(name) "archive_" #name,
    ARCHIVE_CALLS(F)
#undef F
    NULL
};
static struct library library = {
    .file = LIBARCHIVE_FILE, .package = "libarchive13", .names = names, .calls = &libarchive, .lock = PTHREAD_MUTEX_INITIALIZER
};

int archive_load(struct err *e)
{
    return library_load(&library, e);
}
