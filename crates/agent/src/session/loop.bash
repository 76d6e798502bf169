# The loop of a session's shell: report how the last file ended, read the name of the next, source
# it. Standard input is the agent's pipe here and /dev/null in what is sourced.
#
# Bash keeps copies of redirected descriptors above the highest of ours, because `<&41` says so, and
# thus out of the way of `exec 10>file` in commands.
#
# `!` keeps a failure of the command from counting as one of the loop, for ERR and `set -e`. The
# options that would act or show here are taken away in between, and so are the traps that would
# run; the agent gives them back at the head of the next command.
#
# The trap is how a command is cut off: the agent stops the shell, sends the signal, kills everything
# else and lets the shell go on. Bash runs the trap before any other command, and an interrupt throws
# an interactive shell out of every function, loop and file.
while
  {
    __sandbar="${PIPESTATUS[0]} $-"
    \builtin set +exv
    \builtin trap -p DEBUG RETURN >&40
    \builtin trap - DEBUG RETURN
    \builtin trap '\builtin trap -p INT >|@DIR@/int; \builtin trap - INT; \builtin kill -INT $$' RTMAX
    \builtin printf '%s\0' "$__sandbar" >&40
  } >&41 2>&41 || \exit 125
  \builtin mapfile -t -n 1 __sandbar && [[ ${__sandbar-} == [cs]* ]]
do
  ! \builtin . "@DIR@/$__sandbar" <&41
done
\exit 125
