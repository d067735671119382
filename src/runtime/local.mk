noinst_LIBRARIES += libruntime.a
libruntime_a_SOURCES = \
	src/runtime/capability.c \
	src/runtime/change_io.c \
	src/runtime/copy_io.c \
	src/runtime/discard_io.c \
	src/runtime/kern_cgroup.c \
	src/runtime/kern_cgroup_end.c \
	src/runtime/kern_changes.c \
	src/runtime/kern_copy.c \
	src/runtime/kern_overlay.c \
	src/runtime/kern_stats.c \
	src/runtime/kern_tar_in.c \
	src/runtime/kern_tar_out.c \
	src/runtime/kern_devices.c \
	src/runtime/kern_oci_seccomp.c \
	src/runtime/kern_seccomp.c \
	src/runtime/log_line.c \
	src/runtime/logs_io.c \
	src/runtime/memory_io.c \
	src/runtime/oci_config.c \
	src/runtime/oci_console_io.c \
	src/runtime/oci_create_io.c \
	src/runtime/oci_hooks_io.c \
	src/runtime/oci_io.c \
	src/runtime/oci_limits.c \
	src/runtime/oci_list_io.c \
	src/runtime/oci_main_io.c \
	src/runtime/oci_mount.c \
	src/runtime/oci_spec.c \
	src/runtime/oci_state.c \
	src/runtime/oci_state_io.c \
	src/runtime/runtime_io.c \
	src/runtime/seccomp_list.c \
	src/runtime/shim_image.c \
	src/runtime/signal.c \
	src/runtime/spawner_io.c \
	src/runtime/spec.c \
	src/runtime/user.c \
	src/runtime/box_internal.h \
	src/runtime/oci_internal.h \
	src/runtime/oci_verbs.h \
	src/runtime/process_internal.h \
	src/runtime/root_internal.h \
	src/runtime/copy_internal.h \
	src/runtime/runtime_internal.h \
	src/runtime/seccomp_list.h

# The shim is a small static program inside the one binary (shim_image.c).
noinst_PROGRAMS += shoal-shim
shoal_shim_SOURCES = \
	src/runtime/capability.c \
	src/runtime/kern_cgroup.c \
	src/runtime/kern_cgroup_end.c \
	src/runtime/kern_devices.c \
	src/runtime/kern_overlay.c \
	src/runtime/kern_root.c \
	src/runtime/kern_stats.c \
	src/runtime/kern_oci_root.c \
	src/runtime/journal_io.c \
	src/runtime/log_io.c \
	src/runtime/memory_io.c \
	src/runtime/oci_hooks_io.c \
	src/runtime/oci_init_io.c \
	src/runtime/oci_spec.c \
	src/runtime/oci_state.c \
	src/runtime/process_io.c \
	src/runtime/shim_io.c \
	src/runtime/shim_main_io.c \
	src/runtime/signal.c \
	src/runtime/spec.c \
	src/runtime/user.c
shoal_shim_CFLAGS = $(AM_CFLAGS) -ffunction-sections -fdata-sections
shoal_shim_LDFLAGS = $(AM_LDFLAGS) $(SHIM_LDFLAGS)
shoal_shim_LDADD = libmodel.a libbase.a $(MSGPACK_LIBS)
src/runtime/shim_image.$(OBJEXT): shoal-shim$(EXEEXT)
