noinst_LIBRARIES += libstore.a
libstore_a_SOURCES = \
	src/store/apply.c \
	src/store/store.c \
	src/store/tx.c \
	src/store/store_internal.h
