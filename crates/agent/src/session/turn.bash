# All lines are equally long, so that `read -N` takes one in one piece; what reads to the end of a line
# reads a pipe byte by byte. But `read` obeys TMOUT, and in POSIX mode any trap ends it. What was being
# read when a signal threw the shell out is nobody's, and may end with the end of its line.
#
# Bash keeps copies of redirected descriptors above the highest of ours, because `<&41` says so, and
# thus out of the way of `exec 10>file` in commands.
#
# Under `set -a` all that is assigned is exported, and this is no program's.
#
# `!` keeps a failure of the command from counting as one of the loop, for ERR and `set -e`.
{ [[ ! ${TMOUT-} ]] && \builtin read -r -N @LINE_BYTES@ __sandbar; } ||
  { \builtin mapfile -t -n 1 __sandbar && [[ ${__sandbar-} ]]; } || \exit 125
__sandbar=${__sandbar:@CALL_AT@:@CALL_BYTES@}
[[ $- != *a* ]] || \builtin declare +x __sandbar
! \builtin . "@DIR@/${__sandbar%% *}" <&41
@REPORT@
