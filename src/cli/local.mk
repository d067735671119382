noinst_LIBRARIES += libcli.a
libcli_a_SOURCES = \
	src/cli/cli.c \
	src/cli/client_io.c \
	src/cli/cmd_backup.c \
	src/cli/cmd_change.c \
	src/cli/cmd_container.c \
	src/cli/cmd_copy_io.c \
	src/cli/cmd_debug.c \
	src/cli/cmd_image.c \
	src/cli/cmd_keys.c \
	src/cli/cmd_login.c \
	src/cli/cmd_managers.c \
	src/cli/cmd_node.c \
	src/cli/cmd_object.c \
	src/cli/cmd_prune.c \
	src/cli/cmd_run.c \
	src/cli/cmd_service.c \
	src/cli/cmd_stack.c \
	src/cli/cmd_swarm.c \
	src/cli/cmd_system.c \
	src/cli/cmd_usage.c \
	src/cli/complete.c \
	src/cli/converge.c \
	src/cli/credentials_io.c \
	src/cli/files_io.c \
	src/cli/format.c \
	src/cli/frames.c \
	src/cli/help.c \
	src/cli/logs.c \
	src/cli/man.c \
	src/cli/names.c \
	src/cli/run.c \
	src/cli/service_flags.c \
	src/cli/service_lists.c \
	src/cli/service_update.c \
	src/cli/service_values.c \
	src/cli/services.c \
	src/cli/session_io.c \
	src/cli/stack_deploy.c \
	src/cli/start_io.c \
	src/cli/table.c \
	src/cli/tasks.c \
	src/cli/term_io.c \
	src/cli/units.c \
	src/cli/cli.h

# ---- installed beside the program, which prints them; the systemd unit is made from a template ----
nodist_man_MANS = src/cli/shoal.1
bashcompletiondir = $(datadir)/bash-completion/completions
zshcompletiondir = $(datadir)/zsh/site-functions
fishcompletiondir = $(datadir)/fish/vendor_completions.d
nodist_bashcompletion_DATA = src/cli/completion/shoal
nodist_zshcompletion_DATA = src/cli/completion/_shoal
nodist_fishcompletion_DATA = src/cli/completion/shoal.fish
nodist_systemdsystemunit_DATA = src/cli/shoal.service
EXTRA_DIST += src/cli/shoal.service.in
CLEANFILES += $(nodist_man_MANS) $(nodist_bashcompletion_DATA) $(nodist_zshcompletion_DATA) \
	$(nodist_fishcompletion_DATA) $(nodist_systemdsystemunit_DATA)
printed = $(MKDIR_P) $(@D) && ./shoal$(EXEEXT) $$what >$@.tmp && mv $@.tmp $@
src/cli/shoal.1: shoal$(EXEEXT)
	$(AM_V_GEN)what=man; $(printed)
src/cli/completion/shoal: shoal$(EXEEXT)
	$(AM_V_GEN)what="completion bash"; $(printed)
src/cli/completion/_shoal: shoal$(EXEEXT)
	$(AM_V_GEN)what="completion zsh"; $(printed)
src/cli/completion/shoal.fish: shoal$(EXEEXT)
	$(AM_V_GEN)what="completion fish"; $(printed)
src/cli/shoal.service: src/cli/shoal.service.in Makefile
	$(AM_V_GEN)$(MKDIR_P) $(@D) && sed 's|@bindir[@]|$(bindir)|' $(srcdir)/src/cli/shoal.service.in >$@.tmp && mv $@.tmp $@
