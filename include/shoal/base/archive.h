/* The door to libarchive (tar, gzip, zstd), which is loaded when it is first used (library.h): libarchive.read_new() is
 * archive_read_new(). */
#ifndef SHOAL_BASE_ARCHIVE_H
#define SHOAL_BASE_ARCHIVE_H

#include <archive.h>
#include <archive_entry.h>
#include <shoal/base/err.h>

#define ARCHIVE_CALLS(F)                                                                                               \
    F(entry_copy_hardlink) F(entry_copy_pathname) F(entry_copy_stat) F(entry_copy_symlink) F(entry_filetype)           \
    F(entry_free) F(entry_gid) F(entry_hardlink) F(entry_linkify) F(entry_linkresolver_free) F(entry_linkresolver_new) \
    F(entry_linkresolver_set_strategy) F(entry_mtime) F(entry_mtime_is_set) F(entry_mtime_nsec) F(entry_new)           \
    F(entry_pathname) F(entry_perm) F(entry_rdev) F(entry_rdevmajor) F(entry_rdevminor) F(entry_set_filetype)          \
    F(entry_set_size) F(entry_size) F(entry_symlink) F(entry_uid) F(entry_xattr_add_entry) F(entry_xattr_next)         \
    F(entry_xattr_reset) F(error_string) F(filter_bytes) F(read_data) F(read_data_block) F(read_disk_descend)          \
    F(read_disk_new) F(read_disk_open) F(read_disk_set_behavior) F(read_disk_set_symlink_physical) F(read_free)        \
    F(read_new) F(read_next_header) F(read_next_header2) F(read_open) F(read_open_fd) F(read_open_filename)            \
    F(read_support_filter_gzip) F(read_support_filter_zstd) F(read_support_format_empty) F(read_support_format_raw)    \
    F(read_support_format_tar) F(set_error) F(write_add_filter_gzip) F(write_close) F(write_data) F(write_disk_new)    \
    F(write_disk_set_options) F(write_free) F(write_header) F(write_new) F(write_open) F(write_open_fd)                \
    F(write_set_bytes_in_last_block) F(write_set_bytes_per_block) F(write_set_format_pax_restricted)                   \
    F(write_set_format_raw) F(write_set_options)

struct archive_calls {
#define F(name) __typeof__(archive_##name) *name;
    ARCHIVE_CALLS(F)
#undef F
};
extern struct archive_calls libarchive; /* all NULL before archive_load() */
int archive_load(struct err *e) must_check;

#endif
