# Options that would act or show in the loop are taken away, and so is the trap that would run in it;
# the agent gives them back at the head of the next command. A RETURN trap ends with its command: it
# would run at the end of every file that is sourced.
#
# The trap is how a command is cut off: the agent stops the shell, sends the signal, kills everything
# else and lets the shell go on. Bash runs the trap before any other command, and an interrupt throws
# an interactive shell out of every function, loop and file. It does so between commands: after the last
# one of a trap that runs in another trap it is forgotten, so one that does nothing follows.
{
  __sandbar="@STATUS@ $- ${__sandbar##*[!0-9]}"
  \builtin set +exv
  \builtin trap -p DEBUG >&40
  \builtin trap - DEBUG RETURN
  \builtin trap '\builtin trap -p INT >|@DIR@/int; \builtin trap - INT; \builtin kill -INT $$; \builtin :' RTMAX
  \builtin printf '%s\0' "$__sandbar" >&40
} >&41 2>&41 || \exit 125
