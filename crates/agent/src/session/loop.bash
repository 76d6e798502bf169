# The loop of a session's shell: read a line, source the file that it names, report how that ended.
# Standard input is the agent's pipe here and /dev/null in what is sourced.
#
# A line is `\. LOOP #FILE ID`: should the shell be out of here, its top level takes the line for a
# command and comes back. `break` and `continue` in what is sourced act on the loop, so a command that
# may run one of them outside loops of its own comes first, where no loop is yet. If one of them is met
# nevertheless, its command is over and so is the loop.
#
# PIPESTATUS stays empty for good where PROMPT_COMMAND ran before there was one; unset, it comes anew.
\builtin unset -v PIPESTATUS
__sandbar=
@ENTERED@
@TURN@
# Begins with a file's name until that has been reported, and with a number from then on.
while [[ $__sandbar != [a-z]* ]]
do
@TURN@
done
@LEFT@
