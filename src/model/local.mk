noinst_LIBRARIES += libmodel.a
libmodel_a_SOURCES = \
	src/model/backup.c \
	src/model/certificate.c \
	src/model/constraint.c \
	src/model/format.c \
	src/model/lists.c \
	src/model/log_driver.c \
	src/model/node_table.c \
	src/model/objects.c \
	src/model/rec.c \
	src/model/rec_diff.c \
	src/model/rec_json.c \
	src/model/rec_mp.c \
	src/model/service.c \
	src/model/rec_internal.h
