# The first thing that a session's shell runs. What stands here is kept small: everything that a
# command may have changed (options, traps, aliases, functions, variables) must not matter.
#
# Two descriptors of ours, both closed in programs that the shell starts: 40 takes reports, 41 is
# /dev/null. Bash cannot set close-on-exec, but it hands the flag on when it duplicates, and the
# copies that it keeps of redirected descriptors have it; the first of these is 10.
\exec 42>@DIR@/status
{ \exec 40>&10; } 42>&-
\exec 42<>/dev/null
{ \exec 41>&10; } 42>&-
\exec 42>&-

# Jobs are nobody's at the keyboard, unless a command wants it otherwise.
\builtin set +m
