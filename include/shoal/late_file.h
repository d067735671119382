/* A file that a worker of its own lane brings to the disk, so that the loop never waits for an fsync, and the file not for
 * the walk of a volume or an unpacked archive: for what changes often and whose older content still serves after a crash. Old or new content survives, as by file_write_atomic(). */
#ifndef SHOAL_LATE_FILE_H
#define SHOAL_LATE_FILE_H

#include <shoal/base/sb.h>
#include <shoal/loop.h>

struct late_file;
struct late_file *late_file_new(struct loop *l, const char *path);
/* Takes what b holds. One job at a time; of what comes meanwhile only the newest is written after it. loop_finish() waits
 * for all of it. A failure is logged. */
void late_file_write(struct late_file *f, struct sb *b);
/* At once, waiting for a write that is under way. When it succeeds, what was queued before is not written any more. */
int late_file_write_now(struct late_file *f, const struct sb *b, struct err *e) must_check;
bool late_file_is_behind(const struct late_file *f); /* the last write failed: the disk may have been full */
/* Takes NULL. What is queued is not written any more, and no write is under way: the file may be removed. */
void late_file_free(struct late_file *f);

#endif
