noinst_LIBRARIES += libbase.a
libbase_a_SOURCES = \
	src/base/aes_gcm.c \
	src/base/archive.c \
	src/base/blake2s.c \
	src/base/clock_io.c \
	src/base/crypto.c \
	src/base/err.c \
	src/base/file_io.c \
	src/base/json.c \
	src/base/library.c \
	src/base/log_io.c \
	src/base/map.c \
	src/base/mem.c \
	src/base/mp.c \
	src/base/proc_io.c \
	src/base/rng.c \
	src/base/sb.c \
	src/base/time.c \
	src/base/val.c \
	src/base/yaml.c \
	src/base/aes_gcm.h \
	src/base/val_internal.h
