# The loop of a session's shell: read a line, source the file that it names, report how that ended.
# Standard input is the agent's pipe here and /dev/null in what is sourced.
#
# A line is `\. LOOP #FILE ID`: should a signal have thrown the shell out of here, its top level takes
# the line for a command and comes back. All lines are equally long, so that `read -N` takes one in one
# piece; what reads to the end of a line reads a pipe byte by byte. But `read` obeys TMOUT, and in POSIX
# mode any trap ends it.
#
# Bash keeps copies of redirected descriptors above the highest of ours, because `<&41` says so, and
# thus out of the way of `exec 10>file` in commands.
#
# `!` keeps a failure of the command from counting as one of the loop, for ERR and `set -e`.
#
# What was being read when the shell was thrown out is nobody's, and may end with the end of its line.
\builtin set +m
__sandbar=
@ENTERED@
while
  { [[ ! ${TMOUT-} ]] && \builtin read -r -N @LINE_BYTES@ __sandbar; } ||
    { \builtin mapfile -t -n 1 __sandbar && [[ ${__sandbar-} ]]; }
do
  __sandbar=${__sandbar:@CALL_AT@:@CALL_BYTES@}
  ! \builtin . "@DIR@/${__sandbar%% *}" <&41
  @REPORT@
done
\exit 125
