import { PasswordInput, type PasswordInputProps } from "@mantine/core";

/** A field for something secret, whose error and whose eye are told to assistive technology too. */
export function Password({ reveals, ...props }: PasswordInputProps & { reveals: string }) {
  return (
    <PasswordInput
      {...props}
      aria-invalid={props.error !== undefined && props.error !== null && props.error !== false ? true : undefined}
      visibilityToggleButtonProps={{ "aria-label": `Show ${reveals}` }}
    />
  );
}
