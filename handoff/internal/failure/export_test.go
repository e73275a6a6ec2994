package failure

// Last is the last reason.
const Last = Reason(len(table) - 1)
