# The loop of a session's shell: read the name of a file, source it, report how it ended. Standard
# input is the agent's pipe here and /dev/null in what is sourced.
#
# Bash keeps copies of redirected descriptors above the highest of ours, because `<&41` says so, and
# thus out of the way of `exec 10>file` in commands.
#
# `!` keeps a failure of the command from counting as one of the loop, for ERR and `set -e`.
#
# A line that brings the shell back into the loop may come when it is there already. It is then the
# name of a file that does not exist.
\builtin set +m
@ENTERED@
while \builtin mapfile -t -n 1 __sandbar && [[ ${__sandbar-} == [cs]* ]]; do
  ! \builtin . "@DIR@/$__sandbar" <&41
  @REPORT@
done
\exit 125
